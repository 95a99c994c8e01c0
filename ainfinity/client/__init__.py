"""How fronts reach the service: one async Protocol, in process or over HTTP."""
