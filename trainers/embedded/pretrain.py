"""`python -m trainers.embedded.pretrain` is `python -m benchmarks.embedded_bases.pretrain` now, in a clone of the repository."""

import sys

if __name__ == "__main__":
    from benchmarks.embedded_bases.pretrain import main

    print("trainers.embedded.pretrain has moved: use `python -m benchmarks.embedded_bases.pretrain`.", file=sys.stderr)
    main()
