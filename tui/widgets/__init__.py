"""Widgets that draw lines of toned text."""
