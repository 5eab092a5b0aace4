"""One training run from a recipe: the script for `accelerate launch -m trainers.train RECIPE.yaml`, and its Python names."""

import sys

from trainers.training.run import TrainingRun, run_training

__all__ = ["TrainingRun", "run_training"]


def main() -> int:
    """`accelerate launch -m trainers.train RECIPE.yaml [key=value ...] [--resume]`: the same as `slam-asr train`."""
    from trainers.cli import main as command_line

    return command_line(["train", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())
