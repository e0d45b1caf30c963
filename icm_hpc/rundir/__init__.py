"""A run's folder: atomic files, saved states, locks, progress."""
