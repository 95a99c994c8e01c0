"""Speed, measured against controls."""
