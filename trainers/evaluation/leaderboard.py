"""The protocol of the Open ASR Leaderboard (English): its figures, and the manifests that its scorer reads.

As of August 2026 the leaderboard drops utterances whose normalised reference is empty, normalises both sides with
Whisper's English normaliser and some more rules, counts words that differ only in their spaces as right, rounds
100 x WER to two decimals, and defines RTFx as the sum of the durations over the sum of the transcription times.
Its lists of personal names and of compounds are not repeated here: the official figure comes from its own scorer,
`normalizer/eval_utils.py` in github.com/huggingface/open_asr_leaderboard, on the manifest that `write_manifest` makes.
"""

import itertools
import os
import re
from collections.abc import Sequence
from pathlib import Path

from trainers.errors import UserError
from trainers.evaluation.normalizers.english import english_normalizer
from trainers.evaluation.normalizers.english_spelling import british_to_american
from trainers.evaluation.normalizers.registry import TextFunction
from trainers.evaluation.scoring import normalize_and_align
from trainers.files import write_jsonl
from trainers.results import LeaderboardFigures, PredictionRow

PROTOCOL = "open-asr-leaderboard"
IGNORED_REFERENCES = frozenset({"", "ignore time segment in scoring"})
_FILLERS = re.compile(r"\b(?:ah|aha|ahh|ahm|eh|ehehe|em|hm|huh|hum|mhum|uhuh|uhm|umm)\b")
_POSSESSIVE = re.compile(
    r"\b(?!(?:it|he|she|what|that|who|here|there|how|when|where|why|this|let)'s)([^\W_]+)'s\b(?! (?:been|gone|done|got)\b)"
)
_SPELLING = {"ok": "okay", "kay": "okay", "etcetera": "etc"}


def leaderboard_normalizer() -> TextFunction:
    """Whisper's English normaliser in one pass, with the leaderboard's fillers, possessives and spelled acronyms."""
    whisper = english_normalizer({**british_to_american(), **_SPELLING})

    def normalize(text: str) -> str:
        text = _POSSESSIVE.sub(r"\1 s", text.lower())
        return join_acronyms(whisper(_FILLERS.sub("", text)))

    return normalize


def join_acronyms(text: str) -> str:
    """Join runs of single characters: "b b c" to "bbc". Two in a row do, or three where "a" or "i" is among them."""
    words: list[str] = []
    for single, run in itertools.groupby(text.split(), key=lambda word: len(word) == 1 and word.isalnum()):
        group = list(run)
        needed = 3 if {"a", "i"} & set(group) else 2
        words += ["".join(group)] if single and len(group) >= needed else group
    return " ".join(words)


def leaderboard_score(rows: Sequence[PredictionRow]) -> LeaderboardFigures:
    """WER and RTFx as the leaderboard gives them. RTFx needs `duration` and `seconds` in every row, else it is `None`."""
    normalize = leaderboard_normalizer()
    kept = [rows[i] for i in scored_utterances([row["reference"] for row in rows])]
    references = [normalize(row["reference"]) for row in kept]
    predictions = [normalize(row["prediction"]) for row in kept]
    scored = normalize_and_align(references, predictions, normalizer="none")
    errors = [compound_errors(a.reference, a.hypothesis) if a.errors else 0 for a in scored.alignments]
    words = int(scored.reference_words.sum())
    seconds, durations = [row.get("seconds") for row in kept], [row.get("duration") for row in kept]
    timed = all(seconds) and all(durations)
    return {
        "protocol": PROTOCOL,
        "wer": round(100 * sum(errors) / words, 2),
        "rtfx": round(sum(durations) / sum(seconds), 2) if timed else None,  # type: ignore[arg-type]
        "utterances": len(kept),
        "ignored_utterances": len(rows) - len(kept),
        "reference_words": words,
        "errors": sum(errors),
    }


def scored_utterances(references: Sequence[str]) -> list[int]:
    """The indices of the utterances that the leaderboard's harness transcribes: those whose reference has words.

    Raises:
        UserError: when none has.
    """
    normalize = leaderboard_normalizer()
    kept = [i for i, reference in enumerate(references) if normalize(reference) not in IGNORED_REFERENCES]
    if not kept:
        raise UserError("Every reference is empty after normalisation: there is nothing to score.")
    return kept


def compound_errors(reference: Sequence[str], hypothesis: Sequence[str]) -> int:
    """Word errors where words that are written together on one side only cost nothing ("white paper", "whitepaper")."""
    rows, columns = len(reference), len(hypothesis)
    cost = [[i + j for j in range(columns + 1)] for i in range(rows + 1)]
    for i in range(1, rows + 1):
        for j in range(1, columns + 1):
            same = reference[i - 1] == hypothesis[j - 1]
            best = min(cost[i - 1][j] + 1, cost[i][j - 1] + 1, cost[i - 1][j - 1] + (not same))
            for k in _joined(reference, i, hypothesis[j - 1]):
                best = min(best, cost[i - k][j - 1])
            for k in _joined(hypothesis, j, reference[i - 1]):
                best = min(best, cost[i - 1][j - k])
            cost[i][j] = best
    return cost[rows][columns]


def write_manifest(
    folder: str | os.PathLike[str], rows: Sequence[PredictionRow], *, model_id: str, dataset: str, split: str = "test"
) -> Path:
    """Write the rows in the leaderboard's form, under the file name that its scorer looks for.

    dataset: the data set's id, with its configuration after another slash if it has one. Texts stay raw.
    """
    name = "_".join(["MODEL", model_id.replace("/", "-"), "DATASET", dataset.replace("/", "-"), split]) + ".jsonl"
    return write_jsonl(
        Path(folder) / name,
        [
            {
                "audio_filepath": os.path.basename(row.get("audio") or "") or f"sample_{index}",
                "duration": row.get("duration"),
                "time": row.get("seconds"),
                "text": row["reference"],
                "pred_text": row["prediction"],
            }
            for index, row in enumerate(rows)
        ],
    )


def _joined(words: Sequence[str], end: int, target: str) -> list[int]:
    """The numbers k > 1 for which the k words before `end` make `target` when written together."""
    found = []
    joined = ""
    for k in range(1, end + 1):
        joined = words[end - k] + joined
        if len(joined) >= len(target):
            if joined == target and k > 1:
                found.append(k)
            break
    return found
