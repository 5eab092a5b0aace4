"""A grid of training runs over encoder depths: planned, run once each, collected, read and drawn."""
