"""How far the times of words are from the truth on real speech, beside those of Whisper's own cross-attention.

    python -m benchmarks.real_word_times MODEL --data FOLDER:SPLIT ... [--language en] [--whisper openai/whisper-base] [--clips 60] [--output FILE.json]

Nobody has marked words in these recordings, but where the sound of a recording begins and ends can be measured. Three recordings at a time are
joined, with pauses of 0.2 to 0.8 s of faint noise: the first word of each then begins, and its last word ends, at a known
time. Sound is what lies less than `--floor` dB (35) under the recording's loudest 10 ms. Words that a system recognises are compared; the
errors of words that both recognise stand in `both`. Only recordings that are clean fit: between the words of others no silence can be told.
"""

import sys
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from benchmarks.long_form import NOISE
from benchmarks.result import figures_parser, publish
from benchmarks.word_times import recognised, summary
from trainers.data.prepare import prepare
from trainers.data.rows import read_audio
from trainers.data.spec import DataSpec
from trainers.evaluation.normalizers import get_normalizer
from trainers.inference.torch_engine import load_pipeline
from trainers.sound import RATE

JOINED = 3  # recordings a clip
PAUSES = (0.2, 0.8)  # seconds
FRAME = RATE // 100
# Of openai/whisper-base's generation_config.json; folders that were converted may lack it.
ALIGNMENT_HEADS = [[3, 1], [4, 2], [4, 3], [4, 7], [5, 1], [5, 2], [5, 4], [5, 6]]

Word = tuple[str, float, float]  # the word, its begin and end in seconds
Edge = tuple[int, str]  # a word's place in its clip, "begin" or "end"


class Clip(NamedTuple):
    """Recordings one after the other."""

    sound: np.ndarray  # (samples,) float32
    words: list[str]
    edges: dict[Edge, float]  # what is known, in seconds


def trimmed(sound: np.ndarray, floor: float) -> np.ndarray:
    """`(samples,)`: from the first to the last frame of 10 ms that is less than `floor` dB under the loudest."""
    frames = sound[: len(sound) // FRAME * FRAME].reshape(-1, FRAME)
    level = 10 * np.log10(np.square(frames.astype(np.float64)).mean(1) + 1e-12)
    loud = np.flatnonzero(level > level.max() - floor)
    return sound[loud[0] * FRAME : (loud[-1] + 1) * FRAME]


def join(recordings: list[tuple[np.ndarray, list[str]]], floor: float, rng: np.random.Generator) -> Clip:
    """A clip of recordings with their words."""
    parts: list[np.ndarray] = []
    words: list[str] = []
    edges: dict[Edge, float] = {}
    length = 0
    for sound, own in recordings:
        pause = rng.normal(0, NOISE, int(RATE * rng.uniform(*PAUSES))).astype(np.float32)
        speech = trimmed(sound, floor)
        begin = length + len(pause)
        edges[len(words), "begin"] = begin / RATE
        words += own
        length = begin + len(speech)
        edges[len(words) - 1, "end"] = length / RATE
        parts += [pause, speech]
    return Clip(np.concatenate([*parts, parts[0]]), words, edges)


def errors(clip: Clip, heard: list[Word]) -> dict[Edge, float]:
    """Seconds after the truth, for each known edge whose word was recognised."""
    found = {}
    for said, index in recognised(" ".join(clip.words), [word for word, *_ in heard]):
        for which, time in zip(("begin", "end"), heard[index][1:], strict=True):
            if (said, which) in clip.edges:
                found[said, which] = time - clip.edges[said, which]
    return found


def timed_words(chunks: list[dict[str, Any]], normalize: Callable[[str], str]) -> list[Word]:
    """The words of a pipeline's answer as they are compared; those with a time left open are left out."""
    words = []
    for chunk in chunks:
        (begin, end), text = chunk["timestamp"], normalize(chunk["text"])
        if text and " " not in text and begin is not None and end is not None:
            words.append((text, begin, end))
    return words


def ours(model: str, clips: list[Clip]) -> list[list[dict[str, Any]]]:
    """The words of a SLAM-ASR model."""
    pipe: Any = load_pipeline(model)
    inputs = ({"raw": clip.sound, "sampling_rate": RATE} for clip in clips)
    return [answer["chunks"] for answer in tqdm(pipe(inputs, return_timestamps="word"), total=len(clips), desc="model")]


def whisper(name: str, language: str, clips: list[Clip]) -> list[list[dict[str, Any]]]:
    """The words of Whisper's decoder through transformers: its cross-attention and dynamic time warping."""
    from transformers import pipeline

    pipe: Any = pipeline("automatic-speech-recognition", name, device="cpu", dtype=torch.float32)
    if getattr(pipe.model.generation_config, "alignment_heads", None) is None:
        pipe.model.generation_config.alignment_heads = ALIGNMENT_HEADS
    settings = {"language": language, "task": "transcribe"}
    return [
        pipe({"raw": clip.sound, "sampling_rate": RATE}, return_timestamps="word", generate_kwargs=settings)["chunks"]
        for clip in tqdm(clips, desc="whisper")
    ]


def rows(found: dict[str, list[dict[Edge, float]]]) -> list[dict[str, Any]]:
    """Of each system the errors of all its words, and of those that all systems recognise."""
    shared = [set.intersection(*(set(clip) for clip in clips)) for clips in zip(*found.values(), strict=True)]
    table = []
    for system, clips in found.items():
        for name, kept in (("own", [set(clip) for clip in clips]), ("both", shared)):
            values: dict[str, list[float]] = defaultdict(list)
            for clip, edges in zip(clips, kept, strict=True):
                for edge in edges:
                    values[edge[1]].append(clip[edge])
            table.append({
                "system": system, "words": name,
                **{which: {"compared": len(own), **summary(own)} for which, own in sorted(values.items())},
            })  # fmt: skip
    return table


def make_clips(data: list[str], language: str, count: int, floor: float, seed: int) -> list[Clip]:
    """`count` clips of recordings in a random order, none twice."""
    normalize = get_normalizer(language)
    spec = [
        DataSpec(dataset=folder, split=split, language=language)
        for folder, _, split in (name.rpartition(":") for name in data)
    ]
    utterances, _ = prepare(spec, "test", quiet=True)
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(utterances))[: count * JOINED].tolist()
    recordings = [(read_audio(utterances[index]), normalize(utterances[index]["text"]).split()) for index in order]
    spoken = [recording for recording in recordings if recording[1]]
    return [join(spoken[at : at + JOINED], floor, rng) for at in range(0, len(spoken) - JOINED + 1, JOINED)]


def main() -> int:
    parser = figures_parser(__doc__)
    parser.add_argument("model", help="a model folder or Hub name")
    parser.add_argument(
        "--data", nargs="+", required=True, metavar="FOLDER:SPLIT", help="clean recordings with transcripts"
    )
    parser.add_argument("--language", default="en", help="of the recordings (default: en)")
    parser.add_argument("--whisper", metavar="MODEL", help="a Whisper model with its decoder, to compare with")
    parser.add_argument("--clips", type=int, default=60, help="of three recordings each (default: 60)")
    parser.add_argument(
        "--floor", type=float, default=35.0, help="dB under the loudest that still is sound (default: 35)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the order and the pauses (default: 0)")
    arguments = parser.parse_args()
    clips = make_clips(arguments.data, arguments.language, arguments.clips, arguments.floor, arguments.seed)
    normalize = get_normalizer(arguments.language)
    answers = {"model": ours(arguments.model, clips)}
    if arguments.whisper:
        answers["whisper"] = whisper(arguments.whisper, arguments.language, clips)
    found = {
        system: [errors(clip, timed_words(chunks, normalize)) for clip, chunks in zip(clips, own, strict=True)]
        for system, own in answers.items()
    }
    result = {
        "data": [Path(name).name for name in arguments.data], "clips": len(clips), "floor_db": arguments.floor,
        "edges": sum(len(clip.edges) for clip in clips), "rows": rows(found),
    }  # fmt: skip
    publish(result, arguments.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
