"""The server component: weights, the engine as a process, its health, its end."""
