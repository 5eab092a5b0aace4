"""`report.md` of a study: what was run, tables by language, plots, and the paper's claims with verdicts."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trainers.evaluation.format import RATE_NAMES, markdown_table, percent, percent_range
from trainers.evaluation.speed import measured_idle
from trainers.files import read_object, write_text
from trainers.results import ERROR_TYPES, RATES, ErrorRate, Figures, ResultRow, language_name, mean
from trainers.study.against_plain import against_plain
from trainers.study.claims import TOO_WRONG, Claim, read_claims
from trainers.study.pairs import paired_intervals
from trainers.study.plan import PlannedRun
from trainers.study.plots import (
    COSTS,
    model_names,
    plot_error_types,
    plot_pareto,
    plot_wer_by_depth,
    system_name,
)
from trainers.study.recipe import StudyRecipe
from trainers.study.state import collect, read_failure, read_result


def write_report(study: StudyRecipe, runs: Sequence[PlannedRun]) -> Path:
    """Collect the results and write `results.jsonl`, `report.md` and the plots into the study's folder."""
    rows = collect(study, runs)
    folder = study.folder
    pictures = draw(rows, folder) if rows else []
    paired = paired_intervals(folder)
    text = render(study, runs, rows, read_claims(rows, paired), pictures, against_plain(rows, paired))
    return write_text(folder / "report.md", text)


def draw(rows: Sequence[ResultRow], folder: Path) -> list[tuple[str, str]]:
    """The plots' file names, each with what it shows."""
    # A result of all languages together says nothing that those by language do not.
    shown = [row for row in rows if row["language"] != "all"] or list(rows)
    plot_wer_by_depth(shown, folder / "wer_by_depth.svg")
    plot_error_types(shown, folder / "error_types.svg")
    pictures = [
        (
            "wer_by_depth.svg",
            "Word error rate by number of encoder layers; bars are 95 % intervals over test speakers or utterances",
        ),
        ("error_types.svg", "Kinds of word errors, per reference word, seeds together"),
    ]
    comparable = {
        "eval_rtf": all(_measured_idle(folder, row) for row in shown),
        "memory_gib": len({row.get("memory_kind") for row in shown}) == 1,
    }
    for name, cost in COSTS.items():
        picture = folder / f"wer_by_{name}.svg"
        if not comparable.get(name, True) or not any(cost.of(row) is not None for row in shown):
            picture.unlink(missing_ok=True)  # of an earlier report, of other rows
            continue
        plot_pareto(shown, name, picture)
        caption = f"Word error rate against {cost.label}; the line joins systems that none beats in both"
        pictures.append((picture.name, caption))
    return pictures


def _measured_idle(folder: Path, row: ResultRow) -> bool:
    """Whether the row's speed was measured on a machine that had nothing else to do; other speeds are in no plot."""
    return measured_idle(read_object(folder / str(row.get("run")) / "metrics.json").get("speed"))


def render(
    study: StudyRecipe,
    runs: Sequence[PlannedRun],
    rows: Sequence[ResultRow],
    claims: Sequence[Claim],
    pictures: Sequence[tuple[str, str]],
    healing: str | None = None,
) -> str:
    """The report as Markdown; `healing` is the table of `against_plain`."""
    finished = sum(read_result(run) is not None for run in runs)
    failures = [(run.name, failure) for run in runs if (failure := read_failure(run)) is not None]
    parts = [f"# {study.name}", "", f"{finished} of {len(runs)} runs are finished, {len(failures)} failed."]
    if finished < len(runs):
        parts.append("The study is not complete: tables and verdicts rest on what is there.")
    parts += ["", "## The paper's claims, read against these runs", "", claims_table(claims)]
    if healing is not None:
        parts += ["", "## Healing and elastic depth, against plain pruning", "", healing]
        parts += [
            "",
            "Matched runs: the same blocks kept, LoRA, language and seed. Intervals as above; negative is better.",
        ]
    for name, caption in pictures:
        parts += ["", f"![{caption}]({name})", "", f"*{caption}.*"]
    for own in _groups(rows):
        title = ", ".join([language_name(own[0]["language"]), *model_names(own[0], rows, always=("audio_model",))])
        parts += ["", f"## {title}", "", results_table(own)]
        if any(row.get("by_source") for row in own):
            parts += ["", "Word error rate by test set, with its 95 % interval:", "", sources_table(own)]
    if failures:
        parts += ["", "## Failed runs", ""]
        parts += [f"- {name}: {failure['error']} (tried {failure['attempts']} x)" for name, failure in failures]
        parts += ["", "`--retry-failed` tries them again."]
    parts += ["", "## How this was made", "", *(f"- {line}" for line in facts(study, rows))]
    return "\n".join(parts) + "\n"


def claims_table(claims: Sequence[Claim]) -> str:
    """Claims, findings and verdicts as a table."""
    rows = [[claim.statement, claim.found, f"**{claim.verdict}**"] for claim in claims]
    lines = [
        markdown_table(["claim", "found here", "verdict"], rows, numeric_from=3, raw=True),
        "*Agree*: the 95 % interval of the relative change excludes 0 and its estimate lies where the claim says. *Disagree*: "
        "the interval lies outside of that. Anything else is not enough evidence. *Withheld*: all systems of the pairs have "
        f"a WER above {100 * TOO_WRONG:.0f} %. Intervals are paired: both systems "
        "transcribed the same utterances, which are resampled together, within each test set by speaker where it has several, so they "
        "speak for these sets and not for others. The spread over seeds is added, by Student's t; systems with one seed show none: another "
        "training run of theirs may differ by more.",
    ]
    return "\n".join(lines)


def results_table(rows: Sequence[ResultRow]) -> str:
    """One line a system and depth, the mean over seeds; the interval is that of the test sets' speakers or utterances, averaged over seeds."""
    header = [
        "system", "layers", "seeds", "WER", "95 % interval", *RATE_NAMES[1:], "sub", "del", "ins", "parameters", "fewer",
        "x real time", "trained in",
    ]  # fmt: skip
    cells = []
    systems = _systems(rows)
    best = min((wer for _, own in systems if (wer := _mean_rate(own, RATES[0])) is not None), default=None)
    for (name, layers, _), own in systems:
        wer = _mean_rate(own, RATES[0])
        shown = f"**{percent(wer)}**" if wer is not None and wer == best else percent(wer)
        cells.append(
            [
                name,
                layers,
                len(own),
                shown,
                _mean_interval(own),
                *(percent(_mean_rate(own, rate)) for rate in RATES[1:]),
                *(percent(mean(row[kind] / max(row["reference_words"], 1) for row in own)) for kind in ERROR_TYPES),
                f"{own[0]['total_params'] / 1e6:.2f} M",
                f"{100 * own[0]['saving']:.1f} %",
                f"{mean(row['eval_rtfx'] for row in own):.1f}",
                f"{mean(row['train_seconds'] for row in own) / 60:.1f} min",
            ]
        )
    words = rows[0]["reference_words"]
    lines = [
        markdown_table(header, cells, raw=True),
        f"Substitutions, deletions and insertions per reference word ({words} words); *fewer*: against the unpruned model.",
        "Bold: the lowest WER of the table, which need not differ from its neighbours.",
    ]
    return "\n".join(lines)


def sources_table(rows: Sequence[ResultRow]) -> str:
    """One line a system and depth, a column a test set; means over seeds, as in `results_table`."""
    systems = _systems(rows)
    sources = sorted({source for row in rows for source in row.get("by_source") or {}})
    words = {name: row["by_source"][name]["reference_words"] for row in rows for name in row.get("by_source") or {}}
    lines: list[list[Any]] = []
    for (name, layers, _), own in systems:
        cells = []
        for source in sources:
            tables = [row["by_source"][source] for row in own if source in (row.get("by_source") or {})]
            cells.append(f"{percent(_mean_rate(tables, RATES[0]))} ({_mean_interval(tables)})" if tables else "")
        lines.append([name, layers, *cells])
    header = ["system", "layers", *(f"{name} ({words[name]} words)" for name in sources)]
    return markdown_table(header, lines, raw=True).rstrip()


def facts(study: StudyRecipe, rows: Sequence[ResultRow]) -> list[str]:
    """What a reader needs to judge and repeat the figures."""
    grid = ", ".join(f"{name} {value}" for name, value in vars(study.grid).items() if value)
    cache = (
        f"{study.cache.dtype} encoder states from one pass of the encoder" if study.cache.enabled else "sound, no cache"
    )
    machines = sorted(
        {f"{row['hardware']['device']}, {row['hardware']['cores']} cores" for row in rows if row.get("hardware")}
    )
    versions = sorted({str(row["hardware"]["torch"]) for row in rows if row.get("hardware")})  # the runs' own
    memory = sorted({str(row["memory_kind"]) for row in rows if row.get("memory_kind")})
    seconds = sum({row["key"]: row["train_seconds"] for row in rows if "same_as" not in row}.values())
    return [
        f"Grid: {grid}.",
        f"Trained from {cache}; scored on sound by the saved models, each loaded anew.",
        f"Training time of all runs: {seconds / 3600:.2f} h. Machines: {'; '.join(machines) or 'none yet'}.",
        f"Memory is that of: {', '.join(memory) or 'nothing yet'}.",
        f"torch {', '.join(versions) or 'not used yet'}.",
    ]


def _groups(rows: Sequence[ResultRow]) -> list[list[ResultRow]]:
    """Rows by what a table is of: the base models and the language."""
    groups: dict[tuple[str, str, str], list[ResultRow]] = {}
    for row in rows:
        groups.setdefault((row["audio_model"], row["text_model"], row["language"]), []).append(row)
    return list(groups.values())


def _systems(rows: Sequence[ResultRow]) -> list[tuple[tuple[str, int, str], list[ResultRow]]]:
    """Rows that differ in the seed only, by (system, layers, kept blocks), the deepest of a system first."""
    systems: dict[tuple[str, int, str], list[ResultRow]] = {}
    for row in rows:
        key = (system_name(row), row["encoder_layers"], str(row.get("kept_encoder_layers")))
        systems.setdefault(key, []).append(row)
    return sorted(systems.items(), key=lambda item: (item[0][0], -item[0][1], item[0][2]))


def _mean_rate(tables: Sequence[Figures], rate: ErrorRate) -> float | None:
    """The mean over seeds; None where one of them lacks the rate: it is of an older version, or nothing was said."""
    values = [value for table in tables if (value := rate.of(table)) is not None]
    return mean(values) if len(values) == len(tables) else None


def _mean_interval(tables: Sequence[Figures]) -> str:
    """The intervals' mean bounds over seeds; `none` without intervals."""
    intervals = [table["wer_ci"] for table in tables if table["wer_ci"]]
    if not intervals:
        return "none"
    return percent_range([mean(each[side] for each in intervals) for side in (0, 1)])
