"""The history of the schema. One file a revision under `versions/`, named and numbered in order."""
