"""The quickstart's report: a table, a plot and the paper's claims read against what was measured."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trainers.files import write_bytes, write_text
from trainers.study.claims import read_claims
from trainers.study.pairs import paired_intervals

Row = dict[str, Any]
LANGUAGES = {"all": "All", "da": "Danish", "nl": "Dutch", "en": "English"}


def readings(folder: Path, rows: Sequence[Row]) -> str:
    """The paper's claims as a Markdown list, each with what these rows and the transcripts below `folder` say of it."""
    return "\n".join(
        f"{number}. **{claim.statement}** {claim.found} Verdict: {claim.verdict}."
        for number, claim in enumerate(read_claims(rows, paired_intervals(folder)), start=1)
    )


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
    plot(rows, folder / "wer.svg")
    text = f"""# SLAM-ASR on the embedded miniature

Three systems with the same frozen Whisper-architecture encoder and frozen causal LM, trained on speech that was synthesised
on this machine and scored on sentences and voices that none of them has heard. These are results of a miniature: they show
that the method and the program work, not how large models do.

{table(rows)}

![Word error rate by system and language](wer.svg)

## The paper's claims, read here

{readings(folder, rows)}

The intervals of the changes are paired: both systems heard the same utterances. One run of each system with one seed: they say how
much another test set of the same kind would differ, not how much another training run would. `slam-asr study` repeats runs over seeds.

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
