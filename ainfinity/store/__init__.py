"""The repositories: tables, guarded updates, the event log, the doorbell, the lease and fast reads."""
