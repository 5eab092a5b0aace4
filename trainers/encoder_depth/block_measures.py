"""A profile of an encoder's blocks: which can be left out, by several methods, from one pass over some speech."""

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import torch
from tqdm import tqdm

from modeling_slam_asr import SlamAsrForConditionalGeneration, SlamAsrProcessor
from modeling_slam_asr.encoder_slam_asr import SlamAsrEncoder
from modeling_slam_asr.processing_slam_asr import pad_features
from trainers.data.collator import SpeechCollator
from trainers.data.rows import TrainingRow, read_audio
from trainers.encoder_depth.selection import DepthProfile
from trainers.feature_cache import states_at
from trainers.sound import RATE


@torch.no_grad()
def profile_encoder(
    encoder: SlamAsrEncoder,
    rows: Sequence[TrainingRow],
    spectrogram: Callable[[np.ndarray], np.ndarray],
    *,
    batch_size: int = 8,
    model: SlamAsrForConditionalGeneration | None = None,
    processor: SlamAsrProcessor | None = None,
    quiet: bool = False,
) -> DepthProfile:
    """
    Measure every block of `encoder`.

    Args:
        rows: utterances with `audio`, and for leave-one-out `transcript`.
        spectrogram: from samples at 16 kHz to `(mel_bins, mel_frames)`; `SlamAsrProcessor.extract_features` is one.
        model, processor: the trained model whose encoder this is, for leave-one-out.
    """
    encoder.eval()
    similarity = _Similarity(len(encoder.layers), encoder.config.d_model)
    losses = _LeaveOneOut(model, processor) if model is not None and processor is not None else None
    seconds = 0.0
    with tqdm(total=len(rows), desc="profiling", unit="utt", disable=quiet) as bar:
        for start in range(0, len(rows), batch_size):
            part = [rows[index] for index in range(start, min(start + batch_size, len(rows)))]
            samples = [read_audio(row) for row in part]
            seconds += sum(map(len, samples)) / RATE
            features, mask = pad_features([spectrogram(each) for each in samples])
            device = encoder.conv1.weight.device
            features, mask = features.to(device), mask.to(device)
            whole = [tuple(encoder.kept_layers[:depth]) for depth in range(len(encoder.layers) + 1)]
            wanted = whole + (losses.variants(encoder) if losses is not None else [])
            states, frame_mask = states_at(encoder, features, mask, wanted)
            similarity.add([states[kept][frame_mask].float() for kept in whole])
            if losses is not None:
                losses.add(part, states, frame_mask, encoder)
            bar.update(len(part))
    base = encoder.config.encoder_layers
    return DepthProfile(
        blocks=list(encoder.kept_layers),
        pruned=[index for index in range(base) if index not in encoder.kept_layers],
        cosine_distance=similarity.cosine_distance(),
        cka_distance=similarity.cka_distance(),
        angles=similarity.angles(),
        utterances=len(rows),
        seconds=seconds,
        loss=losses.means()[0] if losses is not None else None,
        losses_without=losses.means()[1:] if losses is not None else [],
    )


class _Similarity:
    """Running sums over frames from which cosine, angle and linear CKA follow."""

    def __init__(self, blocks: int, width: int) -> None:
        self.frames = 0
        self.cosines = torch.zeros(blocks + 1, blocks + 1, dtype=torch.float64)
        self.angle_sums = torch.zeros(blocks + 1, blocks + 1, dtype=torch.float64)
        self.sums = torch.zeros(blocks + 1, width, dtype=torch.float64)
        self.grams = torch.zeros(blocks + 1, width, width, dtype=torch.float64)
        self.crosses = torch.zeros(blocks, width, width, dtype=torch.float64)

    def add(self, states: Sequence[torch.Tensor]) -> None:
        """States `(frames, width)` at each depth, of the same frames."""
        self.frames += len(states[0])
        stacked = torch.stack(list(states), dim=1).cpu()  # (frames, depths, width)
        unit = torch.nn.functional.normalize(stacked, dim=-1)
        cosines = (unit @ unit.transpose(1, 2)).clamp(-1, 1).double()
        self.cosines += cosines.sum(0)
        self.angle_sums += cosines.arccos().sum(0) / torch.pi
        self.sums += stacked.sum(0).double()
        for depth in range(stacked.shape[1]):
            self.grams[depth] += (stacked[:, depth].T @ stacked[:, depth]).double()
            if depth:
                self.crosses[depth - 1] += (stacked[:, depth].T @ stacked[:, depth - 1]).double()

    def cosine_distance(self) -> list[float]:
        return (1 - self.cosines.diagonal(1) / self.frames).tolist()

    def angles(self) -> list[list[float]]:
        angles = self.angle_sums / self.frames
        angles.fill_diagonal_(0.0)  # rounding makes a state's angle to itself a little more
        return angles.tolist()

    def cka_distance(self) -> list[float]:
        means = self.sums / self.frames
        centred = [gram - self.frames * torch.outer(mean, mean) for gram, mean in zip(self.grams, means, strict=True)]
        found = []
        for index, cross in enumerate(self.crosses):
            cross = cross - self.frames * torch.outer(means[index + 1], means[index])
            norms = torch.linalg.norm(centred[index]) * torch.linalg.norm(centred[index + 1])
            found.append(float(1 - torch.linalg.norm(cross) ** 2 / norms))
        return found


class _LeaveOneOut:
    """Summed loss of the whole model, then without each block."""

    def __init__(self, model: SlamAsrForConditionalGeneration, processor: SlamAsrProcessor) -> None:
        self.model = model.eval()
        self.collator = SpeechCollator(processor)
        blocks = len(model.audio_encoder.layers)
        self.sums = [0.0] * (blocks + 1)
        self.tokens = 0

    def variants(self, encoder: SlamAsrEncoder) -> list[tuple[int, ...]]:
        kept = tuple(encoder.kept_layers)
        return [kept, *(kept[:index] + kept[index + 1 :] for index in range(len(kept)))]

    def add(
        self,
        rows: Sequence[TrainingRow],
        states: Mapping[tuple[int, ...], torch.Tensor],
        frame_mask: torch.Tensor,
        encoder: SlamAsrEncoder,
    ) -> None:
        lengths = frame_mask.sum(-1).tolist()
        for place, kept in enumerate(self.variants(encoder)):
            hidden = states[kept].cpu()
            batch = self.collator(
                [{**row, "encoder_hidden_states": hidden[i, : lengths[i]]} for i, row in enumerate(rows)]
            )
            inputs = {
                name: value.to(encoder.conv1.weight.device)
                for name, value in batch.items()
                if isinstance(value, torch.Tensor)
            }
            self.sums[place] += float(self.model(**inputs, num_items_in_batch=1).loss)
        self.tokens += int((batch["labels"] != -100).sum())

    def means(self) -> list[float]:
        return [total / max(self.tokens, 1) for total in self.sums]


def plot_profile(profile: DepthProfile, path: str) -> None:
    """Each measure by block, and the angle between any two depths."""
    from matplotlib.figure import Figure

    from trainers.figures import style, write_figure

    figure = Figure(figsize=(13, 4), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[3, 2])
    names = [str(block) for block in profile.blocks]
    curves = {
        "1 - cosine": profile.cosine_distance,
        "angle / pi": profile.angular_distance,
        "1 - linear CKA": profile.cka_distance,
    }
    if profile.losses_without and profile.loss is not None:
        curves["loss without it, more"] = [loss - profile.loss for loss in profile.losses_without]
    for number, (label, values) in enumerate(curves.items()):
        top = max(map(abs, values)) or 1.0
        left.plot(names, [value / top for value in values], label=f"{label} (1 = {top:.3g})", **style(number))
    left.set_xlabel("encoder block")
    left.set_ylabel("how much the block does, relative to the greatest")
    left.axhline(0, color="0.8", zorder=0)
    left.legend(loc="center left", bbox_to_anchor=(1.02, 0.5), fontsize=8, frameon=False)
    image = right.imshow(profile.angles, origin="lower", cmap="viridis")
    right.set_xlabel("depth (blocks passed)")
    right.set_ylabel("depth (blocks passed)")
    right.set_title("angle / pi between the states at two depths")
    figure.colorbar(image, ax=right)
    write_figure(figure, path)


def describe(profile: DepthProfile, counts: Iterable[int]) -> str:
    """The recommendations as text, ready for a recipe."""
    lines = [
        f"{len(profile.blocks)} blocks, {profile.utterances} utterances, {profile.seconds / 60:.1f} minutes of speech"
    ]
    width = max(map(len, profile.methods))
    for count in counts:
        lines.append(f"\nto leave out {count}:")
        for method in profile.methods:
            lines.append(f"  {method:<{width}}  prune_encoder_layers: {profile.recommend(method, count)}")
    return "\n".join(lines)
