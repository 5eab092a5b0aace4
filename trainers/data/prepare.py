"""From data specs to the rows that training and evaluation use: read, checked, filtered, normalised, counted."""

import logging
import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TypedDict

from datasets import Dataset, Features, Value, concatenate_datasets

from trainers.data.scan import Scanned, scan
from trainers.data.sources import load_source
from trainers.data.spec import DataSpec
from trainers.errors import UserError
from trainers.files import read_jsonl, write_jsonl
from trainers.provenance import DataCounts
from trainers.recipes.checked_dataclasses import build

logger = logging.getLogger(__name__)

MAX_BAD_FRACTION = 0.01
KEEP_SECONDS = 300.0
"""after which what a scan has found so far is written, for a run that is killed"""
_ADDED = Features({"transcript": Value("string"), "seconds": Value("float64")})


class BadFile(TypedDict):
    """A recording that cannot be used, as `bad_files.jsonl` lists it."""

    role: str
    id: str
    error: str


NOT_CHOSEN = "beyond max_samples or max_hours"
"""Why utterances are left out that nothing is wrong with."""


@dataclass
class DataReport:
    """What became of the rows of one role (train, validation, test): how many were kept, and why the others were not."""

    role: str
    rows: int = 0
    kept: int = 0
    hours: float = 0.0
    dropped: Counter[str] = field(default_factory=Counter)
    bad_files: list[BadFile] = field(default_factory=list)

    def describe(self) -> str:
        """One line for people."""
        reasons = "".join(f", {count} {reason}" for reason, count in self.dropped.items())
        return f"{self.role}: {self.kept} of {self.rows} utterances, {self.hours:.2f} h{reasons}"

    def as_dict(self) -> DataCounts:
        """The counts, for `metrics.json`; the bad files stand in `bad_files.jsonl`."""
        return {"rows": self.rows, "kept": self.kept, "hours": round(self.hours, 4), "dropped": dict(self.dropped)}


def prepare(
    specs: Sequence[DataSpec],
    role: str,
    *,
    seed: int = 42,
    max_bad_fraction: float = MAX_BAD_FRACTION,
    output_dir: Path | None = None,
    quiet: bool = False,
) -> tuple[Dataset, DataReport]:
    """The utterances of all `specs` as one data set, and what was left out.

    The columns are those of `trainers.data.rows`, with `transcript` (normalised for training) and `seconds` (measured).
    `text` stays as the source has it: it is the reference for scoring.

    Args:
        role: `train`, `validation` or `test`; used in messages and file names.
        seed: chooses the rows where `max_samples` or `max_hours` leaves some out.
        max_bad_fraction: share of damaged recordings of a source above which this is an error.
        output_dir: where `scan-{role}.jsonl` is kept (and used again by a resumed run) and `bad_files.jsonl` goes.

    Raises:
        UserError: too many damaged recordings, or nothing left to use, in any of the sources: what the others give is not what
            was asked for.
    """
    report = DataReport(role)
    sources = unique_ids([load_source(spec) for spec in specs])
    scanned = _scan_all(specs, sources, role, output_dir, quiet)
    for found in scanned:
        report.rows += len(found)
        report.bad_files += [
            BadFile(role=role, id=item.id, error=item.error) for item in found if item.error is not None
        ]
    _list_damage(report, output_dir)
    for spec, source, found in zip(specs, sources, scanned, strict=True):
        _check_damage(spec, found, role, max_bad_fraction, output_dir)
        _tell_other_lengths(source, found)
    parts = []
    for spec, source, found in zip(specs, sources, scanned, strict=True):
        before = report.dropped.copy()
        parts.append(_select(spec, source, found, report, seed))
        if not len(parts[-1]):
            why = report.dropped - before + Counter(damaged=sum(item.error is not None for item in found))
            reasons = ", ".join(f"{count} {reason}" for reason, count in why.items())
            raise UserError(
                f"No utterance of {spec.dataset!r} is left for {role}: {reasons}. Loosen the filters or check the data."
            )
    dataset = concatenate_datasets(parts)
    report.kept = len(dataset)
    report.hours = sum(dataset["seconds"]) / 3600
    return dataset, report


def unique_ids(sources: Sequence[Dataset]) -> list[Dataset]:
    """The sources with every id there once: the second `a` becomes `a#2`, so that messages and predictions can be told apart."""
    seen: Counter[str] = Counter()
    result = []
    for source in sources:
        names = []
        for name in source["id"]:
            seen[name] += 1
            names.append(name if seen[name] == 1 else f"{name}#{seen[name]}")
        if names != list(source["id"]):
            ids = Dataset.from_dict({"id": names}, features=Features({"id": Value("string")}))
            source = concatenate_datasets([source.remove_columns("id"), ids], axis=1)
        result.append(source)
    return result


def _scan_all(
    specs: Sequence[DataSpec], sources: Sequence[Dataset], role: str, output_dir: Path | None, quiet: bool
) -> list[list[Scanned]]:
    """What a scan found of every source; what an earlier one found of sound that is the same since is taken over.

    What was damaged then is looked at again: it may have been mended. An interrupted scan keeps what it has found.
    """
    path = output_dir / f"scan-{role}.jsonl" if output_dir is not None else None
    earlier = _earlier_scan(path) if path is not None else []
    flat: list[Scanned] = []
    kept_at = time.monotonic()

    def keep() -> None:
        """What is found so far, and of the rest what an earlier scan found."""
        if path is not None and flat:
            write_jsonl(path, [asdict(item) for item in {item.id: item for item in [*earlier, *flat]}.values()])

    def note(block: Sequence[Scanned]) -> None:
        nonlocal kept_at
        flat.extend(block)
        if time.monotonic() - kept_at > KEEP_SECONDS:
            keep()
            kept_at = time.monotonic()

    try:
        found = [
            scan(source, spec.verify, f"reading {role} audio", quiet, earlier, spec.max_duration, note)
            for spec, source in zip(specs, sources, strict=True)
        ]
    except BaseException:
        keep()
        raise
    if path is not None and flat != earlier:
        write_jsonl(path, [asdict(item) for item in flat])
    return found


def _earlier_scan(path: Path) -> list[Scanned]:
    """The content of a scan's file; nothing when there is none, or one that another program or version wrote."""
    try:
        return [build(Scanned, row) for row in read_jsonl(path)]
    except (OSError, ValueError, TypeError, RecursionError):
        return []


def _tell_other_lengths(source: Dataset, scanned: Sequence[Scanned]) -> None:
    """Say where recordings are longer than their rows state: perhaps the rows mean parts of them."""
    longer = [
        (item.id, stated, item.duration)
        for item, stated in zip(scanned, source["duration"], strict=True)
        if item.error is None and item.duration > 1.1 * stated + 0.5
    ]
    if longer:
        name, stated, measured = longer[0]
        logger.warning(
            f"{len(longer)} recordings are longer than their rows' `duration`, the first {name!r} ({measured:.2f} s, stated "
            f"{stated:.2f} s). They are read whole; a part needs `offset` or `start`."
        )


def _list_damage(report: DataReport, output_dir: Path | None) -> None:
    bad = report.bad_files
    if bad:
        report.dropped["damaged"] = len(bad)
    if output_dir is not None:
        path = output_dir / "bad_files.jsonl"
        kept = [row for row in _earlier_bad_files(path) if row["role"] != report.role]
        if kept or bad:
            write_jsonl(path, [*kept, *bad])


def _check_damage(
    spec: DataSpec, scanned: Sequence[Scanned], role: str, max_bad_fraction: float, output_dir: Path | None
) -> None:
    """Each source by itself: beside a large one, a small one could be lost whole."""
    errors = [item.error for item in scanned if item.error is not None]
    if len(errors) > max_bad_fraction * len(scanned):
        listed = f" All are listed in {output_dir / 'bad_files.jsonl'}." if output_dir is not None else ""
        raise UserError(
            f"{len(errors)} of {len(scanned)} {role} recordings of {spec.dataset!r} cannot be read, more than "
            f"max_bad_fraction={max_bad_fraction:g} allows. The first: {errors[0]}{listed} "
            "Mend or remove them, or raise max_bad_fraction."
        )


def _earlier_bad_files(path: Path) -> list[BadFile]:
    """What other roles have listed; nothing where the file is another program's."""
    try:
        return [BadFile(role=row["role"], id=row["id"], error=row["error"]) for row in read_jsonl(path)]
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return []


def _select(spec: DataSpec, source: Dataset, scanned: Sequence[Scanned], report: DataReport, seed: int) -> Dataset:
    """The rows of one source that pass the filters, in their order, with `transcript` and `seconds`."""
    texts = list(source["text"])
    transcripts = [spec.transcript(text) for text in texts]
    kept = []
    for index, (item, transcript) in enumerate(zip(scanned, transcripts, strict=True)):
        reason = rejection(spec, item.duration, texts[index], transcript) if item.error is None else None
        if reason is not None:
            report.dropped[reason] += 1
        elif item.error is None:
            kept.append(index)
    chosen = _limit(spec, kept, scanned, seed)
    if len(chosen) < len(kept):
        report.dropped[NOT_CHOSEN] += len(kept) - len(chosen)
    added = Dataset.from_dict(
        {"transcript": transcripts, "seconds": [item.duration for item in scanned]}, features=_ADDED
    )
    return concatenate_datasets([source, added], axis=1).select(chosen)


def rejection(spec: DataSpec, seconds: float, text: str | None, transcript: str) -> str | None:
    """Why the filters of `spec` leave an utterance out, or None. One whose source gives no text has no reference either."""
    if seconds < spec.min_duration:
        return f"shorter than {spec.min_duration:g} s"
    if seconds > spec.max_duration:
        return f"longer than {spec.max_duration:g} s"
    if text is None or len(transcript) < spec.min_characters:
        return "without text"
    if spec.max_characters is not None and len(transcript) > spec.max_characters:
        return f"of more than {spec.max_characters} characters"
    return None


def _limit(spec: DataSpec, kept: list[int], scanned: Sequence[Scanned], seed: int) -> list[int]:
    """A seeded choice of at most `max_samples` rows and `max_hours` hours, in the source's order."""
    if spec.max_samples is None and spec.max_hours is None:
        return kept
    order = kept.copy()
    random.Random(seed).shuffle(order)
    chosen: list[int] = []
    seconds = 0.0
    for index in order[: spec.max_samples]:
        seconds += scanned[index].duration
        if spec.max_hours is not None and seconds > 3600 * spec.max_hours and chosen:
            break
        chosen.append(index)
    return sorted(chosen)
