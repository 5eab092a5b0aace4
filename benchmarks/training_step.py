"""A training step of the project and of the paper's own code, side by side: time, memory, share of what is possible.

    python -m benchmarks.training_step --reference DIR [--dtypes bfloat16 float32] [--rounds 6] [--output FILE.json]
    python -m benchmarks.training_step --part cached --work FOLDER      # one part alone, in FOLDER of an earlier run

Whisper-small and an LLM of Qwen2-0.5B's shape, random weights, batches of 4 clips of 3 to 6 s, projector only. The
parts, each a process of its own that loads its models from disk as a user's run does:

- `reference`: `train.py` of a checkout of https://github.com/KarthikKolluriKB/SLAM-ASR-Encoder-Pruning-LoRA, run as
  it is with its configuration for whisper-small, but for paths, the LLM's width and its log to Weights & Biases. That
  configuration says `mixed_precision: true`: on a CPU a bfloat16 LLM and a float32 encoder (here `bfloat16`);
  `float32` sets it to false. Left out without --reference. On PYTHONPATH it needs openai-whisper (which needs numba,
  tiktoken and more-itertools), omegaconf and python-dotenv.
- `cached`: `SlamAsrTrainer` on cached encoder states. `autocast` is `dtype: float32` with `bf16: true`.
- `checkpointed`: the same with `gradient_checkpointing: true`, which the reference always has.
- `encoder`: `SlamAsrTrainer` on the sound.
- `ceiling`: the matrix products of a `cached` step by themselves, and a product of two 2048 x 2048 matrices.

A step is timed from the end of one optimiser step to the end of the next, by the same hook in every part: everything
is in it. The reference's four data workers read sound beforehand; ours reads its data within the step. The processes
take turns after two steps to warm up; meanwhile the others wait. A turn is two steps, of which the second is timed: some
systems take pages from a process that waits. The peak of memory is read before the operations are counted, in a step
after the last round. Each program draws batches from the same clips in its own order. Three of four clips are of the
longest kind, with transcripts of one number of tokens, so that all but one batch in 250 are padded alike and take the
same operations.

`share_of_ceiling`: operations in the products of a step, a second of the whole step, by the rate of the fastest
product. Memory is the peak resident set of the process (`ru_maxrss`), loading included. With --output, results of
other dtypes that the file holds already stay in it.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.result import figures_parser, publish
from benchmarks.training_step_parts import BATCH, DURATIONS, PARTS, run_part


class Part:
    """A part's process, which waits for its turns."""

    def __init__(self, arguments: argparse.Namespace, name: str, work: Path, *options: str) -> None:
        self.name = name
        command = [sys.executable, "-m", "benchmarks.training_step", "--part", name, "--work", str(work), "--paced"]
        command += ["--threads", str(arguments.threads), "--rounds", str(arguments.rounds), *options]
        command += ["--reference", str(arguments.reference)] if arguments.reference is not None else []
        environment = {**os.environ, "OMP_NUM_THREADS": str(arguments.threads), "HF_HUB_OFFLINE": "1"}
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def read(self) -> dict[str, Any]:
        """The next report.

        Raises:
            RuntimeError: the process has ended without one.
        """
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(
                f"The part {self.name!r} stopped with exit code {self.process.wait()}; see its messages above."
            )
        return dict(json.loads(line))

    def turn(self) -> dict[str, Any]:
        """Let the part do one step; its figures."""
        assert self.process.stdin is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        return self.read()


def compare(arguments: argparse.Namespace, work: Path, dtype: str) -> dict[str, Any]:
    """The parts in turns, all in one dtype."""
    wanted = {"cached", *arguments.parts}
    if arguments.reference is None or dtype == "autocast":  # the reference's autocast is for GPUs only
        wanted -= {"reference"}
    names = [name for name in PARTS[1:-1] if name in wanted]
    parts: dict[str, Part] = {}
    steps: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for name in names:
        parts[name] = Part(arguments, name, work, "--dtype", dtype)
        parts[name].read()
    for count in range(arguments.rounds):
        for name, part in parts.items():
            steps[name].append(part.turn())
        seconds = ", ".join(f"{name} {taken[-1]['wall']:.2f} s" for name, taken in steps.items())
        print(f"{dtype}, round {count + 1}: {seconds}", file=sys.stderr, flush=True)
    result: dict[str, Any] = {"rounds": arguments.rounds}
    ends = {name: part.turn() for name, part in parts.items()}  # each counts its operations
    shapes = ends["cached"]["shapes"]
    for name, found in ends.items():
        own = found.pop("shapes")
        result[name] = {
            "step_seconds": round(statistics.median(step["wall"] for step in steps[name]), 3),
            "step_seconds_from_to": [round(pick(step["wall"] for step in steps[name]), 3) for pick in (min, max)],
            "step_cpu_seconds": round(statistics.median(step["cpu"] for step in steps[name]), 3),
            "matrix_product_gflop": round(products(own) / 1e9, 1),
            "llm_positions": next(m for m, k, n, _ in own if (k, n) == (896, 4864)),
            **found,
            "peak_above_imports_gib": round(found["peak_gib"] - found["after_imports_gib"], 3),
        }
    rates = ceiling_rates(Part(arguments, "ceiling", work, "--dtype", dtype, "--shapes", json.dumps(shapes)), arguments)
    best = max(rates, key=lambda shape: rates[shape])
    alone = sum(2 * m * k * n * count / rates[f"{m}x{k}x{n}"] for m, k, n, count in shapes)
    achieved = products(shapes) / result["cached"]["step_seconds"]
    result["ceiling"] = {
        "gflop_a_second": round(rates[best] / 1e9, 1), "product": best,
        "2048x2048x2048_gflop_a_second": round(rates["2048x2048x2048"] / 1e9, 1),
        "cached_products_alone_seconds": round(alone, 3),
        "cached_gflop_a_second": round(achieved / 1e9, 1), "share_of_ceiling": round(achieved / rates[best], 3),
    }  # fmt: skip
    if "reference" in parts:
        for name in names[1:]:  # each round's own ratio
            ratios = [old["wall"] / new["wall"] for old, new in zip(steps["reference"], steps[name], strict=True)]
            result[name]["times_as_fast_as_reference"] = round(statistics.median(ratios), 2)
            memory = result[name]["peak_gib"] / result["reference"]["peak_gib"]
            result[name]["peak_memory_of_reference"] = round(memory, 3)
    return result


def ceiling_rates(part: Part, arguments: argparse.Namespace) -> dict[str, float]:
    """Of each product by itself the best rate of all rounds, operations a second."""
    part.read()
    rates: dict[str, float] = {}
    for _ in range(arguments.rounds):
        for shape, rate in part.turn()["rates"].items():
            rates[shape] = max(rates.get(shape, 0.0), rate)
    part.read()
    return rates


def products(shapes: list[list[int]]) -> int:
    """Floating-point operations of matrix products, `[rows, inner, columns, how many]` each."""
    return sum(2 * m * k * n * count for m, k, n, count in shapes)


def main() -> int:
    parser = figures_parser(__doc__)
    parser.add_argument("--reference", type=Path, help="a checkout of the reference code")
    parser.add_argument(
        "--dtypes", nargs="+", choices=("bfloat16", "float32", "autocast"), default=["bfloat16", "float32"]
    )
    parser.add_argument("--parts", nargs="+", choices=PARTS[1:-1], default=PARTS[1:-1])
    parser.add_argument("--rounds", type=int, default=6, help="timed steps of each part")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--work", type=Path, help="keep models and data in this folder (default: a temporary one)")
    parser.add_argument("--part", choices=PARTS, help="only this one")
    parser.add_argument("--dtype", default="bfloat16", help="of --part")
    parser.add_argument("--shapes", default="[]", help=argparse.SUPPRESS)
    parser.add_argument("--paced", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.part is not None:
        if arguments.work is None or (arguments.part == "reference" and arguments.reference is None):
            parser.error("--part needs --work, and the part `reference` also --reference.")
        return run_part(arguments)
    if arguments.reference is None:
        print("No --reference: its part is left out, and there is nothing to compare with.", file=sys.stderr)
    with tempfile.TemporaryDirectory() as temporary:
        work = (arguments.work or Path(temporary)).resolve()
        work.mkdir(parents=True, exist_ok=True)
        if not (work / "features").is_dir() or (arguments.reference and not (work / "whisper.pt").is_file()):
            Part(arguments, "prepare", work).read()
        known = json.loads(arguments.output.read_text()) if arguments.output and arguments.output.is_file() else {}
        result: dict[str, Any] = {
            **known,
            "models": "whisper-small and an LLM of Qwen2-0.5B's shape, random weights; projector only",
            "batch": f"{BATCH} clips of {min(DURATIONS)} to {max(DURATIONS)} s", "threads": arguments.threads,
            **{dtype: compare(arguments, work, dtype) for dtype in arguments.dtypes},
        }  # fmt: skip
    publish(result, arguments.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
