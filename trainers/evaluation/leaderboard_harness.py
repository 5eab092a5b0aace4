"""`python -m trainers.evaluation.leaderboard_harness` is `python -m benchmarks.leaderboard_harness` now, in a clone of the repository."""

import sys

if __name__ == "__main__":
    from benchmarks.leaderboard_harness import main

    print(
        "trainers.evaluation.leaderboard_harness has moved: use `python -m benchmarks.leaderboard_harness`.",
        file=sys.stderr,
    )
    sys.exit(main(sys.argv[1:]))
