"""The quickstart's report: a table, a plot and the paper's claims read against what was measured."""

from collections.abc import Sequence
from pathlib import Path

from trainers.evaluation.format import RATE_NAMES, markdown_table, percent, percent_range
from trainers.figures import draw_bars, draw_legend, new_figure, rate_of, write_figure
from trainers.files import write_text
from trainers.results import ERROR_TYPES, RATES, ResultRow, language_name
from trainers.study.claims import read_claims
from trainers.study.pairs import paired_intervals
from trainers.study.proof import Proof


def readings(folder: Path, rows: Sequence[ResultRow]) -> str:
    """The paper's claims as a Markdown list, each with what these rows and the transcripts below `folder` say of it."""
    return "\n".join(
        f"{number}. **{claim.statement}** {claim.found} Verdict: {claim.verdict}."
        for number, claim in enumerate(read_claims(rows, paired_intervals(folder)), start=1)
    )


def table(rows: Sequence[ResultRow]) -> str:
    """All rows as a Markdown table."""
    header = [
        "system", "language", "WER", "95 % interval", *RATE_NAMES[1:], "sub", "del", "ins", "words", "parameters", "trained",
        "x real time",
    ]  # fmt: skip
    cells = [
        [
            row["name"],
            language_name(row["language"]),
            percent(row["wer"]),
            percent_range(row["wer_ci"]),
            *(percent(rate.of(row)) for rate in RATES[1:]),
            *(row[kind] for kind in ERROR_TYPES),
            row["reference_words"],
            f"{row['total_params'] / 1e6:.2f} M",
            f"{row['trainable_params'] / 1e6:.3f} M",
            f"{row['eval_rtfx']:.0f}",
        ]
        for row in rows
    ]
    return markdown_table(header, cells, numeric_from=2).rstrip()


def plot(rows: Sequence[ResultRow], path: Path) -> None:
    """WER with its interval by language and system, as SVG."""
    systems = list(dict.fromkeys(row["name"] for row in rows))
    languages = list(dict.fromkeys(row["language"] for row in rows))
    figure, axes = new_figure(width=6.4)
    series = {
        system: [
            rate_of(row)
            for language in languages
            for row in rows
            if (row["name"], row["language"]) == (system, language)
        ]
        for system in systems
    }
    draw_bars(axes[0], [language_name(language) for language in languages], series)
    axes[0].set_ylabel("word error rate (%)")
    axes[0].set_title("Unseen sentences and voices; bars: 95 % interval")
    draw_legend(figure, axes)
    write_figure(figure, path)


def write_report(
    folder: Path, rows: Sequence[ResultRow], proof: Proof, recording: str, spoken: str, facts: Sequence[str]
) -> Path:
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
It transcribed `{recording}`:

| | |
| --- | --- |
| spoken | {spoken} |
| `AutoModel` | {proof["AutoModel"]} |
| `pipeline` | {proof["pipeline"]} |

## How it was made

{chr(10).join(f"- {fact}" for fact in facts)}
"""
    return write_text(folder / "report.md", text)
