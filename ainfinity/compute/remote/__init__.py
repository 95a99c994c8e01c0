"""Attempts on machines elsewhere, through SkyPilot."""
