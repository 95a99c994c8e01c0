"""SkyPilot task templates, and the code that renders a job into one.

Imports neither SkyPilot nor the trainer: a task is a plain mapping, which `compute` hands to SkyPilot.
"""
