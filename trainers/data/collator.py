"""Rows to batches: recordings (or cached encoder states) and token ids, padded."""

from collections.abc import Sequence
from typing import Any

import torch

from modeling_slam_asr.processing_slam_asr import SlamAsrProcessor, pad_features, pad_rows
from trainers.data.augment import Augmenter
from trainers.data.rows import TrainingRow, read_audio
from trainers.data.spec import AugmentationSpec


class SpeechCollator:
    """Makes a model's batch of rows with `audio` or `encoder_hidden_states`, and `transcript`.

    A batch holds what `SlamAsrForConditionalGeneration.forward` takes, and `ids` and `indices` (lists, one entry a row);
    with `for_generation`, also `prompt_input_ids` and `prompt_attention_mask` (batch, prompt length): the sequence up to
    where the transcript begins.

    A row that is not `counted` has no labels. Rows with `encoder_hidden_states` (frames, width), the states before the encoder's final LayerNorm, give
    `encoder_hidden_states` (batch, frames, width) and `encoder_attention_mask` (batch, frames) in place of spectrograms.
    """

    def __init__(
        self,
        processor: SlamAsrProcessor,
        *,
        augmentation: AugmentationSpec | None = None,
        seed: int = 42,
        for_generation: bool = False,
    ) -> None:
        self.processor = processor
        self.for_generation = for_generation
        changes = augmentation is not None and augmentation.active
        self.augmenter = Augmenter(augmentation, seed, processor.sampling_rate) if augmentation and changes else None

    def __call__(self, rows: Sequence[TrainingRow]) -> dict[str, Any]:
        if "encoder_hidden_states" in rows[0]:
            batch, mel_frames = self._states(rows)
        else:
            batch, mel_frames = self._spectrograms(rows)
        prompts = [
            self.processor.prompt_ids(frames, language=row.get("language"))
            for frames, row in zip(mel_frames, rows, strict=True)
        ]
        targets = [self.processor.transcript_ids(row["transcript"]) for row in rows]
        pairs = list(zip(prompts, targets, strict=True))
        batch["input_ids"], batch["attention_mask"] = self._pad([prompt + target for prompt, target in pairs])
        labels = [
            [-100] * len(prompt) + (target if row.get("counted", True) else [-100] * len(target))
            for row, (prompt, target) in zip(rows, pairs, strict=True)
        ]
        batch["labels"] = pad_rows(labels, -100, "left")
        if self.for_generation:
            batch["prompt_input_ids"], batch["prompt_attention_mask"] = self._pad(prompts)
        batch["ids"] = [str(row["id"]) for row in rows]
        batch["indices"] = [int(row.get("index", -1)) for row in rows]
        return batch

    def _spectrograms(self, rows: Sequence[TrainingRow]) -> tuple[dict[str, Any], list[int]]:
        features = []
        for row in rows:
            samples = read_audio(row, self.processor.sampling_rate)
            if self.augmenter is None:
                features.append(self.processor.extract_features(samples))
            else:
                rng = self.augmenter.generator(row["epoch"], row["index"])
                changed = self.processor.extract_features(self.augmenter.wave(samples, rng))
                features.append(self.augmenter.spectrogram(changed, rng))
        input_features, mask = pad_features(features)
        return {"input_features": input_features, "input_features_mask": mask}, [item.shape[-1] for item in features]

    def _states(self, rows: Sequence[TrainingRow]) -> tuple[dict[str, Any], list[int]]:
        states = [torch.as_tensor(row["encoder_hidden_states"]) for row in rows]
        lengths = [len(item) for item in states]
        padded = torch.nn.utils.rnn.pad_sequence(states, batch_first=True)
        mask = (torch.arange(padded.shape[1]) < torch.tensor(lengths)[:, None]).long()
        return {"encoder_hidden_states": padded, "encoder_attention_mask": mask}, [2 * length for length in lengths]

    def _pad(self, rows: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        return pad_rows(rows, self.processor.pad_token_id, "left"), pad_rows(
            [[1] * len(row) for row in rows], 0, "left"
        )
