"""Settings: from words and YAML to one checked value."""
