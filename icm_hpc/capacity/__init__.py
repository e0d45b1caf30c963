"""Whether a run fits its model, its server and its machines, before it is queued."""
