"""The quickstart's report: a table, a plot and the paper's claims read against what was measured."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trainers.files import write_bytes, write_text

Row = dict[str, Any]
LANGUAGES = {"all": "All", "da": "Danish", "nl": "Dutch", "en": "English"}


def relative(new: float, old: float) -> str:
    """The change from `old` to `new` as a signed percentage of `old`."""
    return f"{100 * (new - old) / old:+.1f} %" if old else "n/a"


def errors(row: Row) -> int:
    """Word errors of a row."""
    return int(row["substitutions"] + row["deletions"] + row["insertions"])


def overlaps(first: Row, second: Row) -> bool:
    """Whether the confidence intervals of two rows overlap."""
    return bool(first["wer_ci"][0] <= second["wer_ci"][1] and second["wer_ci"][0] <= first["wer_ci"][1])


def readings(full: dict[str, Row], pruned: dict[str, Row], lora: dict[str, Row]) -> list[str]:
    """The paper's three claims, each with what the rows of the three systems (by language) say."""
    a, b, c = full["all"], pruned["all"], lora["all"]
    change = (b["wer"] - a["wer"]) / a["wer"] if a["wer"] else float("inf")
    cost = (
        "in the paper's range"
        if 0.02 <= change <= 0.04
        else "more than the paper's"
        if change > 0.04
        else "less than the paper's"
    )
    certain = "the intervals overlap" if overlaps(a, b) else "the intervals do not overlap"
    first = (
        f"**Dropping two layers costs 2-4 % WER (relative).** Found: {a['wer']:.4f} to {b['wer']:.4f}, "
        f"{relative(b['wer'], a['wer'])}: {cost}; {certain}."
    )
    saved = 1 - c["total_params"] / a["total_params"]
    beats = "it does" if c["wer"] < a["wer"] else "it does not"
    certain = "the intervals overlap" if overlaps(a, c) else "the intervals do not overlap"
    second = (
        f"**Pruned with LoRA beats the unpruned projector-only system, with fewer parameters.** Found: {c['wer']:.4f} "
        f"against {a['wer']:.4f} ({relative(c['wer'], a['wer'])}): {beats}; {certain}. It has {100 * saved:.1f} % fewer "
        "parameters in total."
    )
    parts = []
    for language, row in pruned.items():
        if language == "all":
            continue
        other = lora[language]
        kinds = ", ".join(
            f"{kind} {row[kind]} to {other[kind]}" for kind in ("substitutions", "deletions", "insertions")
        )
        parts.append(f"{LANGUAGES.get(language, language)} {relative(errors(other), errors(row))} ({kinds})")
    third = (
        "**LoRA cuts the total of word errors by 11-21 % for Dutch and English, mostly substitutions and deletions, and by "
        f"4-7 % for Danish, where insertions rise.** Found, against the same pruned encoder: {'; '.join(parts)}."
    )
    return [first, second, third]


def table(rows: Sequence[Row]) -> str:
    """All rows as a Markdown table."""
    lines = [
        "| system | language | WER | 95 % interval | CER | sub | del | ins | words | parameters | trained | x real time |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in rows:
        low, high = row["wer_ci"]
        lines.append(
            f"| {row['name']} | {LANGUAGES.get(row['language'], row['language'])} | {row['wer']:.4f} | {low:.4f}-{high:.4f} "
            f"| {row['cer']:.4f} | {row['substitutions']} | {row['deletions']} | {row['insertions']} | {row['reference_words']} "
            f"| {row['total_params'] / 1e6:.2f} M | {row['trainable_params'] / 1e6:.3f} M | {row['eval_rtfx']:.0f} |"
        )
    return "\n".join(lines)


def plot(rows: Sequence[Row], path: Path) -> None:
    """WER with its interval by language and system, as SVG."""
    import io

    import matplotlib
    from matplotlib.figure import Figure

    matplotlib.rcParams["svg.hashsalt"] = "slam-asr"  # the same picture, byte for byte, each time
    systems = list(dict.fromkeys(row["name"] for row in rows))
    languages = list(dict.fromkeys(row["language"] for row in rows))
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.subplots()
    width = 0.8 / len(systems)
    for place, system in enumerate(systems):
        own = {row["language"]: row for row in rows if row["name"] == system}
        heights = [own[language]["wer"] for language in languages]
        spread = [
            [max(0.0, h - own[x]["wer_ci"][0]) for h, x in zip(heights, languages, strict=True)],
            [max(0.0, own[x]["wer_ci"][1] - h) for h, x in zip(heights, languages, strict=True)],
        ]
        positions = [index + (place - (len(systems) - 1) / 2) * width for index in range(len(languages))]
        axes.bar(positions, heights, width, yerr=spread, capsize=3, label=system)
    axes.set_xticks(range(len(languages)), [LANGUAGES.get(x, x) for x in languages])
    axes.set_ylabel("word error rate")
    axes.set_title("Word error rate on unseen sentences and voices (bars: 95 % interval)")
    axes.legend()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    write_bytes(path, buffer.getvalue())


def write_report(folder: Path, rows: Sequence[Row], proof: dict[str, Any], facts: Sequence[str]) -> Path:
    """Write `wer.svg` and `report.md` into `folder`."""
    by_system: dict[str, dict[str, Row]] = {}
    for row in rows:
        by_system.setdefault(row["name"], {})[row["language"]] = row
    plot(rows, folder / "wer.svg")
    claims = "\n".join(f"{number}. {text}" for number, text in enumerate(readings(*by_system.values()), start=1))
    text = f"""# SLAM-ASR on the embedded miniature

Three systems with the same frozen Whisper-architecture encoder and frozen causal LM, trained on speech that was synthesised
on this machine and scored on sentences and voices that none of them has heard. These are results of a miniature: they show
that the method and the program work, not how large models do.

{table(rows)}

![Word error rate by system and language](wer.svg)

## The paper's claims, read here

{claims}

One run of each system with one seed: the intervals say how much another test set of the same kind would differ, not how much
another training run would. `slam-asr study` repeats runs over seeds.

## The saved model

`model/` was loaded by a fresh process with transformers alone (`{proof["class"].rpartition(".")[2]}` from the folder's own code).
It transcribed `{proof["recording"]}`:

| | |
| --- | --- |
| spoken | {proof["spoken"]} |
| `AutoModel` | {proof["AutoModel"]} |
| `pipeline` | {proof["pipeline"]} |

## How it was made

{chr(10).join(f"- {fact}" for fact in facts)}
"""
    return write_text(folder / "report.md", text)
