"""
The audio part of an export with onnxruntime and numpy alone: from samples to the embeddings that an LLM reads.

The base for engines without torch.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainers.errors import UserError
from trainers.serving.manifest import AudioSettings, read_manifest

_MEL_FLOOR = 1e-10
_MEL_RANGE = 8.0  # in powers of ten below the loudest


@dataclass(frozen=True)
class Heard:
    """
    One recording as the LLM reads it.

    embeddings: `(audio_tokens, hidden)` float32; of a compressing model only the frames that say something.
    placeholders: audio tokens before compression; lengths and limits go by these.
    ctc_log_probs: `(placeholders, 1 + classes)`, blank first; None without a CTC head.
    """

    embeddings: NDArray[np.float32]
    placeholders: int
    ctc_log_probs: NDArray[np.float32] | None


class OnnxAudio:
    """
    Args:
        folder: an export, see `slam-asr export`.
        int8: use the file with 8-bit weights.
        threads: of onnxruntime; 0: its own choice.
    Raises:
        UserError: when the folder has no such part, a file is damaged, or onnxruntime is not installed.
    """

    def __init__(self, folder: str | os.PathLike[str], int8: bool = False, threads: int = 0) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise UserError('The ONNX audio part needs onnxruntime: `pip install "slam-asr[export]"`.') from error
        part = "onnx-int8" if int8 else "onnx"
        self.manifest = read_manifest(folder, part)
        self.settings: AudioSettings = self.manifest["audio"]
        path = Path(folder) / self.manifest["parts"][part]["path"]
        self.mel_filters = np.load(path.with_name("mel_filters.npy"), allow_pickle=False)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self.session: Any = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def features(self, samples: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
        """
        The log-mel spectrogram `(mel_bins, mel_frames)` of one recording of `(samples,)`, padded with silence as in training.

        Raises:
            UserError: for one that is longer than a call takes, or not of one channel.
        """
        settings = self.settings
        samples = np.asarray(samples, dtype=np.float32)
        if samples.ndim != 1:
            raise UserError(
                f"A recording is one row of samples, got the shape {samples.shape}. Mix its channels first."
            )
        longest, unit = settings["longest"], settings["unit"]
        if len(samples) > longest:
            seconds = len(samples) / settings["sampling_rate"]
            raise UserError(
                f"The recording lasts {seconds:.1f} s; one call takes at most {longest / settings['sampling_rate']:.0f} s. Cut it."
            )
        length = longest if settings["pad_to_longest"] else min(-(-max(len(samples), 1) // unit) * unit, longest)
        samples = np.pad(samples, (0, length - len(samples)))
        return log_mel(samples, self.mel_filters, settings["n_fft"], settings["hop_length"])

    def __call__(self, recordings: Sequence[NDArray[np.floating[Any]]]) -> list[Heard]:
        """What the LLM reads for each of several recordings of `(samples,)` at the model's sampling rate, in one pass."""
        return self.hear([self.features(samples) for samples in recordings])

    def hear(self, features: Sequence[NDArray[np.float32]]) -> list[Heard]:
        """The same for spectrograms `(mel_bins, mel_frames)`, as [`features`] makes them."""
        if not features:
            return []
        batch = np.zeros((len(features), features[0].shape[0], max(item.shape[1] for item in features)), np.float32)
        mask = np.zeros((len(features), batch.shape[2]), np.int64)
        for row, item in enumerate(features):
            batch[row, :, : item.shape[1]] = item
            mask[row, : item.shape[1]] = 1
        outputs = self.session.run(None, {"input_features": batch, "input_features_mask": mask})
        return [self._heard([output[row][used] for output in (outputs[0], *outputs[2:])])
                for row, used in enumerate(outputs[1].astype(bool))]  # fmt: skip

    def ctc_tokens(self, classes: Sequence[int]) -> list[int]:
        """The token ids of CTC classes, from 1."""
        tokens = self.settings["ctc_tokens"]
        return [index - 1 if tokens is None else tokens[index - 1] for index in classes]

    def _heard(self, outputs: list[NDArray[np.float32]]) -> Heard:
        embeddings, scores = outputs[0], outputs[1] if len(outputs) > 1 else None
        heard = embeddings
        if self.settings["compress"] is not None and scores is not None:
            heard = compress(embeddings, scores, self.settings["compress_keep"])
        return Heard(heard, len(embeddings), scores)


def log_mel(
    samples: NDArray[np.float32], filters: NDArray[np.float32], n_fft: int, hop_length: int
) -> NDArray[np.float32]:
    """
    Whisper's log-mel spectrogram `(mel_bins, samples / hop_length)` of `(samples,)`.

    Args:
        filters: `(n_fft / 2 + 1, mel_bins)`.
    Source: `WhisperFeatureExtractor` of transformers, with which it agrees within 1e-4.
    """
    padded = np.pad(samples.astype(np.float64), n_fft // 2, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(padded, n_fft)[::hop_length][:-1]
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_fft) / n_fft)
    power = np.abs(np.fft.rfft(frames * window)) ** 2
    mel = np.log10(np.maximum(filters.T.astype(np.float64) @ power.T, _MEL_FLOOR))
    mel = np.maximum(mel, mel.max() - _MEL_RANGE)
    return ((mel + 4.0) / 4.0).astype(np.float32)


def compress(embeddings: NDArray[np.float32], scores: NDArray[np.float32], keep: float) -> NDArray[np.float32]:
    """
    Only the frames that say something, neighbours that say the same token averaged, as the torch model does.

    Args:
        embeddings: `(frames, hidden)`.
        scores: log-probabilities `(frames, 1 + classes)`, blank first.
        keep: a frame stays where the tokens together have at least this probability.
    """
    best = scores[:, 1:].argmax(-1)
    stays = np.exp(scores[:, 0]) <= 1 - keep
    groups: list[list[int]] = []
    for frame in np.flatnonzero(stays):
        if groups and groups[-1][-1] == frame - 1 and best[frame - 1] == best[frame]:
            groups[-1].append(int(frame))
        else:
            groups.append([int(frame)])
    if not groups:
        return embeddings[:0]
    return np.stack([embeddings[group].mean(0) for group in groups])
