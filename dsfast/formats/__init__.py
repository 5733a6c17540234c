"""How workflows are written down: YAML and JSON in, YAML and drawings out, and imports from other systems."""
