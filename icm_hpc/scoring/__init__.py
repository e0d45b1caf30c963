"""From labels to log-probabilities: prompts, and the client that has a server score them."""
