"""The self-contained HTML report: tables, plots, and an alignment of every utterance with its audio."""

import os
import urllib.parse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2

from trainers.data.suffixes import SOUND_SUFFIXES
from trainers.evaluation.alignment import DELETE, EQUAL, INSERT, SUBSTITUTE, Alignment
from trainers.evaluation.format import percent
from trainers.evaluation.plots import score_plots
from trainers.evaluation.score_tables import score_sections
from trainers.results import ERROR_TYPES, Metrics, PredictionRow

MOST_UTTERANCES = 1_000
AUDIO_SUFFIXES = frozenset({*SOUND_SUFFIXES, ".m4a", ".webm"})
_CLASSES = {EQUAL: "e", SUBSTITUTE: "s", DELETE: "d", INSERT: "i"}


def render_html(
    title: str,
    metrics: Metrics,
    rows: Sequence[PredictionRow],
    alignments: Sequence[Alignment],
    folder: str | os.PathLike[str],
    most_utterances: int = MOST_UTTERANCES,
) -> str:
    """One HTML page without any outside resource. Everything from the data is escaped.

    folder: where the page will stand, for the links to local audio files. most_utterances: the page lists so many
    utterances, those with the most errors first.
    """
    order = sorted(range(len(rows)), key=lambda i: (-alignments[i].errors, i))[:most_utterances]
    rates = [a.errors / max(len(a.reference), 1) for a in alignments]
    return render_page(
        "report.html.jinja",
        title=title,
        language=metrics.get("language") or "",
        sections=list(score_sections(metrics)),
        plots=score_plots(metrics, rates),
        utterances=[_utterance(rows[i], alignments[i], Path(folder)) for i in order],
        total=len(rows),
    )


def render_page(template: str, **values: Any) -> str:
    """A page from one of the templates. Everything from the data is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(**values)


def _utterance(row: PredictionRow, alignment: Alignment, folder: Path) -> dict[str, object]:
    words = len(alignment.reference)
    return {
        "id": row.get("id", ""),
        "language": row.get("language") or "",
        "speaker": row.get("speaker_id") or "",
        "source": row.get("source") or "",
        "duration": row.get("duration"),
        "confidence": row.get("confidence"),
        "words": words,
        "errors": alignment.errors,
        "rate": percent(alignment.errors / words if words else None),
        "rate_value": alignment.errors / words if words else alignment.errors,
        "counts": tuple(getattr(alignment, kind) for kind in ERROR_TYPES),
        "pairs": [(_CLASSES[kind], r or "", h or "") for kind, r, h in alignment.pairs()],
        "raw_reference": row["reference"],
        "raw_prediction": row["prediction"],
        "audio": audio_link(row.get("audio"), folder),
    }


def audio_link(audio: Any, folder: Path) -> str | None:
    """A relative link from `folder` to a local audio file; `None` for anything else."""
    if not isinstance(audio, str) or not audio or "\0" in audio:
        return None
    path = Path(audio)
    if path.suffix.lower() not in AUDIO_SUFFIXES or not path.is_file():
        return None
    return urllib.parse.quote(Path(os.path.relpath(path.resolve(), folder.resolve())).as_posix())
