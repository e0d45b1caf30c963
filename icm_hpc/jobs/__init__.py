"""A run as a job: the only package that queues one, and the only one that knows submitit."""
