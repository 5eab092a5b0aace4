"""How far the times of words are from the truth, on eSpeak speech, whose own events say when each word begins.

    python -m benchmarks.word_times MODEL [--split test] [--utterances 300] [--seed 0] [--output FILE.json]

MODEL has learnt the embedded default (`slam-asr quickstart` makes one). Words that it recognises are compared, for
`return_timestamps="word"` (the LLM's attention) and `"estimate"` (shared out by letters). A word ends where the next
begins: eSpeak leaves no pauses between the words of these sentences.
"""

import ctypes
import itertools
import multiprocessing
import statistics
import sys
import warnings
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import jiwer
import numpy as np
import torch
from tqdm import tqdm

from benchmarks.result import figures_parser, publish
from modeling_slam_asr.transcripts_slam_asr import Chunk
from trainers.embedded import espeak
from trainers.embedded.corpus import Utterance, plan_utterances
from trainers.inference.torch_engine import load_pipeline
from trainers.sound import RATE

WORD, END = 1, 5  # eSpeak's numbers of its events
Times = tuple[float, float]  # begin and end in seconds


class Event(ctypes.Structure):
    """eSpeak NG's `espeak_EVENT`."""

    _fields_ = (
        ("type", ctypes.c_int), ("unique_identifier", ctypes.c_uint), ("text_position", ctypes.c_int),
        ("length", ctypes.c_int), ("audio_position", ctypes.c_int), ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p), ("id", ctypes.c_char * 8),
    )  # fmt: skip


def true_times(item: Utterance) -> dict[int, Times]:
    """Begin and end of each word by its place in the text; words that eSpeak joins to the one before are left out."""
    library, rate = espeak.espeak()
    found: list[tuple[int, int, float]] = []  # type, first character, second

    def keep(_samples: int | None, _count: int, events: Any) -> int:
        index = 0
        while events[index].type != 0:
            event = events[index]
            found.append((event.type, event.text_position - 1, event.sample / rate))
            index += 1
        return 0

    callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.POINTER(Event))(keep)
    library.espeak_SetSynthCallback(callback)
    sound = item.sound
    espeak.ask_espeak(library, item.text, sound.voice, sound.words_per_minute, sound.pitch, sound.pitch_range)
    edges = [(place, second) for kind, place, second in found if kind in (WORD, END)]
    starts = np.cumsum([0, *(len(word) + 1 for word in item.text.split(" "))])
    before = sound.silence_before
    times: dict[int, Times] = {}
    for (place, begin), (following, end) in itertools.pairwise(edges):
        index = int(np.searchsorted(starts, place, side="right")) - 1
        following_index = int(np.searchsorted(starts, following, side="right")) - 1
        if following_index - index == 1 or following >= starts[-1] - 1:
            times[index] = (before + begin, before + end)
    return times


def recognised(text: str, heard: Sequence[str]) -> Iterator[tuple[int, int]]:
    """The place in `text` and among the words `heard` of each word that was recognised."""
    for part in jiwer.process_words(text, " ".join(heard) or "-").alignments[0]:
        if part.type == "equal":
            yield from zip(
                range(part.ref_start_idx, part.ref_end_idx), range(part.hyp_start_idx, part.hyp_end_idx), strict=True
            )


def errors(truth: dict[int, Times], text: str, chunks: list[Chunk]) -> list[tuple[float, float]]:
    """Seconds that the begin and the end of each recognised word lie after the true ones."""
    found = []
    for place, index in recognised(text, [chunk["text"].strip() for chunk in chunks]):
        if place in truth:
            pairs = zip(chunks[index]["timestamp"], truth[place], strict=True)
            found.append(tuple(ours - true for ours, true in pairs))
    return found  # type: ignore[return-value]


def summary(values: list[float]) -> dict[str, float]:
    """Of errors in seconds: the median of their sizes, the 90th percentile, the share within 0.2 s, and the mean."""
    sizes = np.abs(values)
    return {
        "median": round(float(np.median(sizes)), 3),
        "percentile_90": round(float(np.percentile(sizes, 90)), 3),
        "within_0.2_s": round(float(np.mean(sizes <= 0.2)), 3),
        "mean_signed": round(statistics.fmean(values), 3),
    }


def measure(model: str, split: str, count: int, seed: int) -> list[dict[str, Any]]:
    """A row for each language and kind of time stamp."""
    items = plan_utterances(split, count, seed)
    # A process an utterance, as eSpeak keeps state; forked before anything here runs threads.
    with multiprocessing.get_context("fork").Pool(2, maxtasksperchild=1) as pool:
        truths = list(tqdm(pool.imap(true_times, items, chunksize=1), total=len(items), desc="true times"))
    pipe: Any = load_pipeline(model)
    sounds = [item.speak()[0] for item in tqdm(items, desc="speaking")]
    rows = []
    for kind in ("word", "estimate"):
        found: dict[str, list[tuple[float, float]]] = defaultdict(list)
        inputs = ({"raw": wave, "sampling_rate": RATE} for wave in sounds)
        answers = pipe(inputs, batch_size=16, return_timestamps=kind)
        for item, truth, answer in zip(items, truths, tqdm(answers, total=len(items), desc=kind), strict=True):
            found[item.language] += errors(truth, item.text, answer["chunks"])
        for language, own in sorted(found.items()):
            begins, ends = (list(values) for values in zip(*own, strict=True))
            rows.append({
                "language": language, "return_timestamps": kind, "words_compared": len(own),
                "begin": summary(begins), "end": summary(ends),
            })  # fmt: skip
    return rows


def main() -> int:
    parser = figures_parser(__doc__)
    parser.add_argument("model", help="a model folder or Hub name")
    parser.add_argument("--split", default="test", choices=("validation", "test"), help="of the embedded corpus")
    parser.add_argument("--utterances", type=int, default=300, help="all languages together (default: 300)")
    parser.add_argument("--seed", type=int, default=0, help="of the embedded corpus (default: 0, the quickstart's)")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore", category=UserWarning)
    torch.set_num_threads(2)
    rows = measure(arguments.model, arguments.split, arguments.utterances, arguments.seed)
    result = {"split": arguments.split, "utterances": arguments.utterances, "rows": rows}
    publish(result, arguments.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
