"""The command `slam-asr`, also `python -m slam_asr`."""

import sys

from slam_asr import check_packages


def main() -> int:
    """Entry point; returns the exit code."""
    try:
        check_packages()
    except ImportError as error:
        print(f"slam-asr: error: {error}", file=sys.stderr)
        return 2
    from trainers.cli import program

    return program()


if __name__ == "__main__":
    sys.exit(main())
