"""One training run: the model of a recipe, the trainer around it, its checkpoints, and what it would cost."""
