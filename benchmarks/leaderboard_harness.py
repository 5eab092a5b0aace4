"""Run the Open ASR Leaderboard's own harness, unchanged, on a published SLAM-ASR model.

`python -m benchmarks.leaderboard_harness run_eval.py --model_id ...` runs the harness's script with SLAM-ASR
registered in transformers, for the script does not trust remote code. It takes models with
`apply_transcription_request` for models whose rows of tokens begin with the prompt, and cuts as many columns off; and it
hands over recordings of more than 30 s whole. The classes below give it what it expects; published models stay as they are.
"""

import runpy
import sys
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSpeechSeq2Seq, AutoProcessor, BatchFeature

from modeling_slam_asr import SlamAsrConfig, SlamAsrForConditionalGeneration, SlamAsrProcessor
from modeling_slam_asr.audio_slam_asr import load_audio
from modeling_slam_asr.windows_slam_asr import cut_windows, default_window

USAGE = "usage: python -m benchmarks.leaderboard_harness RUN_EVAL.py [its arguments]"


class HarnessProcessor(SlamAsrProcessor):
    """The processor, with one row for each window of a long recording; audio placeholders part the windows' tokens."""

    window_limits: tuple[float, float]
    """The longest window, and up to what length a recording stays whole, in seconds."""

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """The processor of a published model, which cuts recordings as the model's pipeline does."""
        processor = super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        place = {name: kwargs[name] for name in ("revision", "token", "cache_dir") if name in kwargs}
        config = SlamAsrConfig.from_pretrained(pretrained_model_name_or_path, **place)
        processor.window_limits = default_window(config, processor.max_seconds)
        return processor

    def apply_transcription_request(self, audio: Any, *args: Any, **kwargs: Any) -> BatchFeature:
        """As of [`SlamAsrProcessor`] for a list of recordings, with the number of windows of each in `windows`."""
        pieces = [self._windows(recording, kwargs.get("sampling_rate")) for recording in audio]
        inputs = super().apply_transcription_request(
            [piece for recording in pieces for piece in recording],
            *args,
            **{**kwargs, "sampling_rate": self.sampling_rate},
        )
        inputs["windows"] = torch.tensor([len(recording) for recording in pieces])
        return inputs

    def batch_decode(self, sequences: Any, *args: Any, **kwargs: Any) -> list[str]:
        """The text of each recording, its windows' texts joined by spaces."""
        texts = []
        for row in sequences.tolist():
            pieces = [list(p) for audio, p in groupby(row, key=lambda token: token == self.audio_token_id) if not audio]
            texts.append(" ".join(filter(None, super().batch_decode(pieces, *args, **kwargs))))
        return texts

    def decode(self, token_ids: Any, *args: Any, **kwargs: Any) -> list[str]:
        """As `batch_decode`; the harness calls either on a batch."""
        return self.batch_decode(token_ids, *args, **kwargs)

    def _windows(self, recording: Any, sampling_rate: int | None) -> list[Any]:
        samples = load_audio(recording, self.sampling_rate, sampling_rate)
        size, whole = self.window_limits
        windows = cut_windows([samples], self.sampling_rate, size, 0.0, whole)
        return [window.samples for window in windows]


class HarnessModel(SlamAsrForConditionalGeneration):
    """The model, whose rows of tokens begin with the prompt's columns, one row for each recording."""

    @torch.no_grad()
    def generate(self, *args: Any, windows: torch.Tensor | None = None, **kwargs: Any) -> Any:  # type: ignore[override]
        """`(recordings, prompt + new tokens)`; the windows of a long recording stand one after another."""
        tokens = super().generate(*args, **{**kwargs, "prompt_columns": True})
        if windows is None or len(windows) == len(tokens):
            return tokens
        columns, place = kwargs["input_ids"].shape[1], self.config.audio_token_id
        parted = torch.nn.functional.pad(tokens[:, columns:], (0, 1), value=place)
        rows = [part.flatten() for part in parted.split(windows.tolist())]
        joined = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=place)
        return torch.nn.functional.pad(joined, (columns, 0), value=place)


def register() -> None:
    """Let the auto classes of this process load SLAM-ASR models as the harness needs them."""
    HarnessProcessor.__name__ = SlamAsrProcessor.__name__  # what a checkpoint's processor_config.json asks for
    AutoModelForSpeechSeq2Seq.register(SlamAsrConfig, HarnessModel, exist_ok=True)
    AutoProcessor.register(SlamAsrConfig, HarnessProcessor, exist_ok=True)


def main(arguments: Sequence[str]) -> int:
    """Run the script at `arguments[0]` as `python` would, with the rest as its arguments."""
    if not arguments or not Path(arguments[0]).is_file():
        print(USAGE, file=sys.stderr)
        return 2
    register()
    sys.argv = list(arguments)
    sys.path[0] = str(Path(arguments[0]).resolve().parent)
    runpy.run_path(arguments[0], run_name="__main__")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
