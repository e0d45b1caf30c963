"""What is known of runs while they run: their states, from their folders and Slurm, as a table and as a screen."""
