"""Ready recipes, one YAML file each, as package data."""
