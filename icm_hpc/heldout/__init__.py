"""Held-out rows: labelled by the pool under several conditions once a run has its labels, and the figures of that."""
