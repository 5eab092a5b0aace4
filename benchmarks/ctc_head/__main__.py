"""What a model's CTC head gives at inference: drafts, compression, silence, and confidences that find errors.

    python -m benchmarks.ctc_head MODEL [--data FOLDER:SPLIT ...] [--language en] [--utterances 200] [--output FILE.json]

MODEL was trained with `projector: {ctc: true}`. Without `--data` the embedded default's test utterances are spoken. Reported are

- drafts: over all utterances, one at a time and greedily, how many transcripts are the same tokens with and without the draft, how
  often the LLM was called for each, and seconds;
- positions: the audio embeddings that the LLM reads, of those that the projector makes;
- silence: of 50 clips of silence, noise of four colours, hum, clicks and chords, 1 to 10 s, those in which a word was written;
- confidence: for each word of the greedy transcripts its least token probability by the LLM and by the CTC head (forced alignment), and
  the area under the curve of finding wrong words with each, and with the smaller of both; 0.5 is chance.
"""

import re
import sys
import time
from collections.abc import Sequence
from typing import Any

import jiwer
import numpy as np
import torch
from scipy import signal
from scipy.stats import mannwhitneyu
from tqdm import tqdm

from benchmarks.ctc_head import read_rows
from benchmarks.result import figures_parser, publish
from modeling_slam_asr.pipeline_slam_asr import align_transcripts, look_again
from modeling_slam_asr.transcripts_slam_asr import split_words, token_pieces, word_confidences
from trainers.data.rows import read_audio
from trainers.inference.torch_engine import load_pipeline
from trainers.sound import RATE

CLIPS = 50


def silent_clips() -> list[np.ndarray]:
    """Sounds without a word, float32, 1 to 10 s at 16 kHz."""
    rng = np.random.default_rng(0)
    clips = []
    for number in range(CLIPS):
        length = int(rng.uniform(1, 10) * RATE)
        times = np.arange(length) / RATE
        level = 10 ** rng.uniform(-3, -0.5)
        noise = rng.standard_normal(length)
        kind = number % 8
        if kind == 0:
            wave = 1e-4 * noise
        elif kind == 1:
            wave = noise
        elif kind == 2:
            wave = np.cumsum(noise) - np.linspace(0, noise.sum(), length)
        elif kind == 3:
            wave = signal.lfilter(*signal.butter(2, 800, fs=RATE), noise)
        elif kind == 4:
            wave = signal.lfilter(*signal.butter(2, [300, 3000], "bandpass", fs=RATE), noise) * (1 + np.sin(6 * times))
        elif kind == 5:
            wave = sum(np.sin(2 * np.pi * 50 * k * times) / k for k in range(1, 8)) + 0.1 * noise
        elif kind == 6:
            wave = (rng.random(length) < 3 / RATE) * rng.choice([-1, 1], length) + 0.01 * noise
        else:
            notes = 220 * 2 ** (rng.choice(25, size=(length // (RATE // 2) + 1, 3)) / 12)
            phase = np.cumsum(np.repeat(notes, RATE // 2, axis=0)[:length], axis=0) / RATE
            wave = np.sin(2 * np.pi * phase).sum(1)
        peak = np.abs(wave).max() or 1.0
        clips.append((wave if kind == 0 else level * wave / peak).astype(np.float32))
    return clips


class Passes:
    """Counts how often a module is called, as a context."""

    def __init__(self, module: torch.nn.Module) -> None:
        self.module, self.count = module, 0

    def __enter__(self) -> "Passes":
        def add(*_: Any) -> None:
            self.count += 1

        self.hook = self.module.register_forward_pre_hook(add)
        return self

    def __exit__(self, *_: Any) -> None:
        self.hook.remove()


def drafts(pipe: Any, sounds: Sequence[np.ndarray], language: str | None) -> tuple[dict[str, Any], list[list[int]]]:
    """Greedy decoding one by one with and without the draft, and the transcripts without it."""
    model, processor = pipe.model, pipe.processor
    transcripts: list[list[int]] = []
    same = 0
    passes, seconds = {True: 0, False: 0}, {True: 0.0, False: 0.0}
    for number, sound in enumerate(tqdm(sounds, desc="drafts")):
        inputs = processor.apply_transcription_request([sound], language=language)
        found = {}
        for draft in ((True, False), (False, True))[number % 2]:
            with Passes(model.language_model) as counted, torch.inference_mode():
                start = time.perf_counter()
                found[draft] = model.generate(**inputs, num_beams=1, do_sample=False, ctc_draft=draft)[0].tolist()
                seconds[draft] += time.perf_counter() - start
            passes[draft] += counted.count
        same += found[True] == found[False]
        transcripts.append(found[False])
    figures = {
        "utterances": len(sounds), "identical": same,
        "passes": passes[False], "passes_with_draft": passes[True], "fewer": round(passes[False] / passes[True], 2),
        "seconds": round(seconds[False], 2), "seconds_with_draft": round(seconds[True], 2),
    }  # fmt: skip
    return figures, transcripts


def positions(pipe: Any, sounds: Sequence[np.ndarray]) -> dict[str, Any]:
    """Audio embeddings made and read."""
    made = read = 0
    for sound in sounds:
        inputs = pipe.processor.apply_transcription_request([sound])
        with torch.inference_mode():
            merged = pipe.model.merge_inputs(**inputs)
        made += int((inputs["input_ids"] == pipe.model.config.audio_token_id).sum())
        read += int((merged.audio & merged.attention_mask.bool()).sum())
    return {"made": made, "read": read, "share": round(read / made, 3)}


def plain(word: str) -> str:
    """A word as it is compared."""
    return re.sub(r"[^\w']+", "", word.lower())


def area(wrong: Sequence[float], right: Sequence[float]) -> float | None:
    """The probability that a wrong word has a lower score than a right one."""
    if not wrong or not right:
        return None
    return round(float(mannwhitneyu(right, wrong).statistic) / (len(right) * len(wrong)), 3)


def confidences(
    pipe: Any,
    sounds: Sequence[np.ndarray],
    texts: Sequence[str],
    transcripts: Sequence[list[int]],
    language: str | None,
) -> dict[str, Any]:
    """How well each score tells wrong words from right ones."""
    model, processor = pipe.model, pipe.processor
    ends = set(np.atleast_1d(model.generation_config.eos_token_id).tolist())
    scores: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in ("llm", "ctc", "both")}
    for sound, text, transcript in zip(tqdm(sounds, desc="confidence"), texts, transcripts, strict=True):
        tokens = [token for token in transcript if token not in ends]
        inputs = processor.apply_transcription_request([sound], language=language)
        audio = {name: inputs[name] for name in ("input_features", "input_features_mask")}
        (aligned,) = align_transcripts(model, [tokens], **audio)
        if not tokens or aligned is None:
            continue
        (look,) = look_again(model, [tokens], **inputs)
        pieces = token_pieces(processor.tokenizer, tokens)
        sure = {
            "llm": word_confidences(pieces, look.log_probs.tolist()),
            "ctc": word_confidences(pieces, aligned[:, 2].tolist()),
            "both": word_confidences(pieces, look.log_probs.tolist(), aligned),
        }
        words = [plain(word) for word in split_words("".join(pieces))]
        judged = [index for index, word in enumerate(words) if word and sure["llm"][index] is not None]
        heard = " ".join(words[index] for index in judged)
        reference = " ".join(filter(None, map(plain, text.split())))
        if not heard or not reference:
            continue
        right = np.zeros(len(judged), dtype=bool)
        for part in jiwer.process_words(reference, heard).alignments[0]:
            right[part.hyp_start_idx : part.hyp_end_idx] |= part.type == "equal"
        for name, found in scores.items():
            for index, good in zip(judged, right, strict=True):
                found[int(good)].append(sure[name][index] or 0.0)
    wrong, correct = scores["llm"]
    return {"words": len(wrong) + len(correct), "wrong": len(wrong)} | {
        f"area_{name}": area(*found) for name, found in scores.items()
    }


def main() -> int:
    parser = figures_parser(__doc__)
    parser.add_argument("model", help="a model folder or Hub name")
    parser.add_argument("--data", nargs="+", metavar="FOLDER:SPLIT", help="data sets (default: the embedded test set)")
    parser.add_argument("--language", help="of the recordings, where the model was trained with it")
    parser.add_argument("--utterances", type=int, default=200)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rows = read_rows(arguments.data or ["embedded:test"], arguments.utterances)
    sounds, texts = [read_audio(row) for row in rows], list(rows["text"])
    pipe: Any = load_pipeline(arguments.model)
    found, transcripts = drafts(pipe, sounds, arguments.language)
    clips = silent_clips()
    answers = [pipe({"array": clip, "sampling_rate": RATE}, silence_db=-1000.0) for clip in tqdm(clips, desc="silence")]
    invented = [answer["text"] for answer in answers if answer["text"].strip()]
    result = {
        "utterances": len(rows), "drafts": found, "positions": positions(pipe, sounds),
        "silence": {"clips": len(clips), "with_words": len(invented), "first": invented[:3]},
        "confidence": confidences(pipe, sounds, texts, transcripts, arguments.language),
    }  # fmt: skip
    publish(result, arguments.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
