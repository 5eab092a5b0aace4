"""`slam-asr study`: a grid of runs over depth, LoRA, language and seed, with its report."""

import argparse
import functools
import json

HELP = """\
Do every run of a grid once, from one pass of the encoder over the data, and report. What is finished is never repeated;
start the same command again after an interruption, or from another machine that sees the same folder.

RECIPE is a YAML file, or the name of a study of the project (miniature_study, real_speech_study, paper_study)."""

EPILOG = """\
examples:
  slam-asr study miniature_study
  slam-asr study miniature_study --status                       while it runs
  slam-asr study miniature_study run.max_steps=100 "grid.seed=[1,2,3]" output_dir=studies/short
  slam-asr study paper_study --jobs 8                           a process a GPU
  slam-asr study paper_study --shard 2/5                        the second of five machines
  slam-asr study miniature_study --retry-failed

Writes results.jsonl, report.md, plots and runs/ into output_dir.

exit codes: 0 done, 1 a run failed, 2 a mistake in the recipe, 143 stopped by SIGTERM with a checkpoint saved"""


def configure(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EPILOG
    parser.add_argument("recipe", metavar="RECIPE", help="a YAML file, or the name of a study of the project")
    parser.add_argument("overrides", metavar="key=value", nargs="*", help='replace a key, such as "grid.seed=[1,2]"')
    parser.add_argument("--output-dir", help="the same as output_dir=...")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="processes on this machine (default: 1)")
    parser.add_argument("--shard", metavar="I/N", help="only the I-th of N parts of the runs, for several machines")
    parser.add_argument("--retry-failed", action="store_true", help="try runs that failed before again")
    parser.add_argument("--status", action="store_true", help="say what is done, running, failed and waiting, and stop")
    parser.add_argument("--plan", action="store_true", help="list the runs with GPU hours, memory and cost, and stop")
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="read each data set and measure a few steps of each kind of run, and stop",
    )
    parser.add_argument("--tflops", type=float, default=100.0, help="that a GPU sustains, for --plan (default: 100)")
    parser.add_argument("--price", type=float, default=2.0, help="of a GPU hour, for --plan (default: 2)")
    parser.add_argument("--report", action="store_true", help="collect results and write the report anew, and stop")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")


def run(args: argparse.Namespace) -> int:
    """Plan, then report on the study or go on with it."""
    from trainers.study.plan import in_shard, parse_shard, plan_runs
    from trainers.study.recipe import load_study
    from trainers.study.state import FAILED, FINISHED, describe_status, status_of

    overrides = [*args.overrides, *([f"output_dir={json.dumps(args.output_dir)}"] if args.output_dir else [])]
    study = load_study(args.recipe, overrides)
    runs = plan_runs(study)
    shard = parse_shard(args.shard) if args.shard else None
    mine = in_shard(runs, shard)
    if not mine:
        print(f"Shard {args.shard} is empty: the study has {len(runs)} runs.")
        return 0
    if args.plan or args.dry_run:
        from trainers.errors import UserError
        from trainers.study.cost import describe_costs, try_kinds

        for name in ("tflops", "price"):
            if not getattr(args, name) > 0:
                raise UserError(f"--{name} {getattr(args, name)}: it must be above 0.")
        if args.dry_run:
            try_kinds(mine)
        print(describe_costs(study, mine, args.tflops, args.price))
        return 0
    if args.status:
        print(describe_status(mine))
        return 0

    from trainers.study.bases import check_bases
    from trainers.study.report import write_report
    from trainers.training.checkpoints import room_to_write

    with room_to_write(study.folder, guess=False):
        if not args.report:
            check_bases(mine)
            if args.jobs == 1:
                from trainers.study.execute import work
                from trainers.training.arguments import check_environment

                for recipe in (run.recipe for run in mine if status_of(run) != FINISHED):
                    check_environment(recipe)
                anew = functools.partial(write_report, study, runs)
                work(study, mine, runs, retry_failed=args.retry_failed, quiet=args.quiet, report=anew)
            else:
                from trainers.study.jobs import run_jobs

                run_jobs(args.recipe, overrides, args.jobs, shard, args.retry_failed, args.quiet)
        report = write_report(study, runs)
    states = [status_of(run) for run in mine]
    print(f"\n{describe_status(mine)}\n{report}")
    return 1 if FAILED in states or (not args.report and set(states) != {FINISHED}) else 0
