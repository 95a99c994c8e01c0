"""The terminal UI: a front that sees the service through the client port alone."""
