"""Carries wishes out: makes the backends match what the store says is wanted."""
