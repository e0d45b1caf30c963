"""One run, from a ready server to labels."""
