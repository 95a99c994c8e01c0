"""Pure rules: no IO, clock, SQL or await."""
