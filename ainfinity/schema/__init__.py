"""What crosses a boundary: job files, states, plans, events, and what fronts are shown."""
