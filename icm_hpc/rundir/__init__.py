"""A run's folder: complete files, saved states, locks, progress."""
