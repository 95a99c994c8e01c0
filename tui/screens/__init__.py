"""Screens: the jobs, one job, and the dialogues over them."""
