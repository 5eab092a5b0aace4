"""Pretraining of the embedded default's encoder: Whisper's architecture, CTC on characters, three languages at once."""

import dataclasses
import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jiwer
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import nn
from transformers import WhisperConfig

from benchmarks.embedded_bases.pretrain_common import save_half, seconds_and_machine, training_loop
from benchmarks.embedded_bases.pretrain_features import NUM_MEL_BINS, feature_extractor, utterance_features
from modeling_slam_asr.encoder_slam_asr import SlamAsrEncoder
from modeling_slam_asr.processing_slam_asr import pad_features
from trainers.embedded.corpus import Utterance
from trainers.embedded.sentences import LANGUAGES
from trainers.errors import UserError
from trainers.files import write_text

CHARACTERS = "abcdefghijklmnopqrstuvwxyzæøåéë' "  # 0 is CTC's blank, so the first has id 1
Example = tuple[Utterance, NDArray[np.float16]]


@dataclasses.dataclass(frozen=True)
class EncoderSettings:
    """Everything that decides the encoder, besides the code."""

    d_model: int = 144
    layers: int = 10
    heads: int = 3
    ffn_dim: int = 576
    utterances: int = 12_000
    steps: int = 1_900
    batch_size: int = 16
    learning_rate: float = 3e-3
    weight_decay: float = 0.05
    dropout: float = 0.0
    intermediate_layer: int = 5  # a second CTC loss after so many blocks (arXiv 2102.03216); 0 for none
    intermediate_weight: float = 0.3  # of the second loss; the first has the rest
    time_mask: int = 5  # SpecAugment's widest blank in mel frames, two an utterance; 0 for none
    mel_mask: int = 8  # SpecAugment's widest blank in mel bins, one an utterance; 0 for none
    start: str = ""  # folder of an encoder to go on from, as `save_encoder` writes it; the CTC layer starts anew
    bf16: bool = False
    measured: int = 300  # utterances a split to measure on
    seed: int = 0


class CtcModel(nn.Module):
    """The encoder and one linear layer to characters. Only the encoder is kept."""

    def __init__(self, config: WhisperConfig) -> None:
        super().__init__()
        self.encoder = SlamAsrEncoder(config)
        self.head = nn.Linear(config.d_model, len(CHARACTERS) + 1)

    def forward(self, features: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """`(B, 80, T)` and `(B, T)` to log-probabilities `(B, T / 2, characters + 1)` and lengths `(B,)`."""
        output = self.encoder(features, mask)
        return self.head(output.last_hidden_state).float().log_softmax(-1), output.attention_mask.sum(1)

    def at_depths(
        self, features: torch.Tensor, mask: torch.Tensor, depths: Sequence[int]
    ) -> tuple[list[torch.Tensor], torch.Tensor]:
        """Log-probabilities as `forward` gives, read after each of some numbers of blocks, and the lengths."""
        states, frame_mask = self.encoder.hidden_states_at(features, mask, depths)
        normed = [self.encoder.layer_norm(states[depth]) for depth in depths]
        return [self.head(state).float().log_softmax(-1) for state in normed], frame_mask.sum(1)


def encoder_config(settings: EncoderSettings) -> WhisperConfig:
    """A Whisper configuration without a decoder worth the name: the folder holds an encoder only."""
    return WhisperConfig(
        vocab_size=len(CHARACTERS) + 1,
        num_mel_bins=NUM_MEL_BINS,
        d_model=settings.d_model,
        encoder_layers=settings.layers,
        encoder_attention_heads=settings.heads,
        encoder_ffn_dim=settings.ffn_dim,
        decoder_layers=1,
        decoder_attention_heads=settings.heads,
        decoder_ffn_dim=settings.ffn_dim,
        dropout=settings.dropout,
        max_source_positions=1500,
        pad_token_id=0,
        bos_token_id=0,
        eos_token_id=0,
        decoder_start_token_id=0,
        begin_suppress_tokens=None,
        architectures=["WhisperForConditionalGeneration"],
    )


def pretrain_encoder(output: Path, scratch: Path, settings: EncoderSettings) -> dict[str, Any]:
    """
    Train, save and measure the encoder.

    Args:
        output: folder for config.json, preprocessor_config.json and model.safetensors (fp16, keys `model.encoder.*`).
        scratch: folder for features and checkpoints; a second call with the same settings goes on where the first ended.
    Returns:
        character error rates on unseen voices and sentences for each language, losses and seconds.
    """
    if not 0 <= settings.intermediate_layer < settings.layers:
        raise UserError(
            f"--intermediate-layer {settings.intermediate_layer} must lie below --layers {settings.layers}; 0 for no second loss."
        )
    torch.manual_seed(settings.seed)
    examples = utterance_features(scratch, "pretrain", settings.utterances, settings.seed)
    model = CtcModel(encoder_config(settings))
    if settings.start:
        model.encoder.load_state_dict(load_encoder(Path(settings.start)))
    name = f"encoder-{settings.layers}x{settings.d_model}-{settings.steps}-{settings.seed}.pt"
    training = training_loop(
        model,
        lambda name: "encoder.layers." in name,
        steps=settings.steps,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        checkpoint=scratch / name,
        description="encoder",
    )
    batches = BatchPlan([array.shape[1] for _, array in examples], settings.batch_size, settings.seed)
    model.train()
    weights = {settings.layers: 1.0}
    if settings.intermediate_layer:
        weights = {
            settings.layers: 1.0 - settings.intermediate_weight,
            settings.intermediate_layer: settings.intermediate_weight,
        }

    def loss_of_step(step: int) -> torch.Tensor:
        torch.manual_seed(settings.seed * 1_000_003 + step)
        chosen = [examples[index] for index in batches[step]]
        features, mask = pad_features([array for _, array in chosen])
        with torch.autocast("cpu", torch.bfloat16, enabled=settings.bf16):
            augmented = spec_augment(features, mask, random.Random(step), settings.time_mask, settings.mel_mask)
            outputs, lengths = model.at_depths(augmented, mask, list(weights))
        targets = [torch.tensor(encode_text(item.text)) for item, _ in chosen]
        target_lengths = torch.tensor([len(target) for target in targets])
        losses = [
            weight
            * nn.functional.ctc_loss(
                output.transpose(0, 1), torch.cat(targets), lengths, target_lengths, zero_infinity=True
            )
            for weight, output in zip(weights.values(), outputs, strict=True)
        ]
        return torch.stack(losses).sum()

    training.run(loss_of_step)
    save_encoder(model.encoder, output)
    result = seconds_and_machine(training.seconds)
    result["train_loss"] = round(training.mean_loss, 4)
    for split in ("validation", "test"):
        found = utterance_features(scratch, split, settings.measured, settings.seed)
        result[f"{split}_cer"] = character_error_rates(model, found)
    return result


def save_encoder(encoder: SlamAsrEncoder, folder: Path) -> None:
    """Write an encoder-only Whisper folder with the key names of openai/whisper-base."""
    folder.mkdir(parents=True, exist_ok=True)
    config = WhisperConfig(**{**encoder.config.to_dict(), "dropout": 0.0})
    write_text(folder / "config.json", config.to_json_string(use_diff=False))
    feature_extractor().save_pretrained(folder)
    save_half(
        {f"model.encoder.{name}": value for name, value in encoder.state_dict().items()}, folder / "model.safetensors"
    )


def load_encoder(folder: Path) -> dict[str, torch.Tensor]:
    """The weights that `save_encoder` wrote, in float32, by the encoder's own names."""
    prefix = "model.encoder."
    return {name.removeprefix(prefix): value.float() for name, value in load_file(folder / "model.safetensors").items()}


class BatchPlan:
    """Which examples each step sees: every pass in a new order, utterances of like length together."""

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        self.lengths, self.batch_size, self.seed = list(lengths), batch_size, seed
        self.steps_a_pass = max(1, len(self.lengths) // batch_size)
        self._pass, self._batches = -1, [[0]]

    def __getitem__(self, step: int) -> list[int]:
        if step // self.steps_a_pass != self._pass:
            self._pass = step // self.steps_a_pass
            self._batches = list(self._order(random.Random(f"{self.seed}/{self._pass}")))
        return self._batches[step % self.steps_a_pass]

    def _order(self, rng: random.Random) -> Iterator[list[int]]:
        order = list(range(len(self.lengths)))
        rng.shuffle(order)
        order.sort(key=lambda index: self.lengths[index] + rng.uniform(-20, 20))
        starts = [position * self.batch_size for position in range(self.steps_a_pass)]
        rng.shuffle(starts)
        return (order[start : start + self.batch_size] for start in starts)


def spec_augment(
    features: torch.Tensor, mask: torch.Tensor, rng: random.Random, time_mask: int = 5, mel_mask: int = 8
) -> torch.Tensor:
    """Blank one band of mel bins and two stretches of time in each utterance (SpecAugment, arXiv 1904.08779)."""
    features = features.clone()
    for row, length in enumerate(mask.sum(1).tolist()):
        mean = float(features[row, :, :length].mean())
        low, width = rng.randint(0, NUM_MEL_BINS - 1 - mel_mask), rng.randint(0, mel_mask)
        features[row, low : low + width] = mean
        for _ in range(2):
            start, width = rng.randint(0, length - 1), rng.randint(0, time_mask)
            features[row, :, start : start + width] = mean
    return features


def encode_text(text: str) -> list[int]:
    """Character ids. A character outside the set is a KeyError-like ValueError: the grammars must not produce one."""
    return [CHARACTERS.index(character) + 1 for character in text]


def decode_greedy(ids: Sequence[int]) -> str:
    """CTC's best path: repeats merged, blanks dropped."""
    merged = [current for previous, current in zip([0, *ids], ids, strict=False) if current != previous]
    return "".join(CHARACTERS[index - 1] for index in merged if index != 0)


@torch.no_grad()
def character_error_rates(model: CtcModel, examples: Sequence[Example]) -> Mapping[str, float]:
    """Character error rate of the best path for each language, as a fraction."""
    model.eval()
    pairs: dict[str, list[tuple[str, str]]] = {language: [] for language in LANGUAGES}
    for start in range(0, len(examples), 30):
        chosen = examples[start : start + 30]
        log_probabilities, lengths = model(*pad_features([array for _, array in chosen]))
        best = log_probabilities.argmax(-1)
        for row, (item, _) in enumerate(chosen):
            pairs[item.language].append((item.text, decode_greedy(best[row, : lengths[row]].tolist())))
    return {
        language: round(float(jiwer.cer([reference for reference, _ in found], [guess for _, guess in found])), 4)
        for language, found in pairs.items()
        if found
    }
