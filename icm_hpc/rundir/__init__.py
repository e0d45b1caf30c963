"""A run's folder: files that are whole or not there, saved states, locks, progress."""
