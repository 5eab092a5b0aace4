"""
Projectors: from the encoder's frames to embeddings that the LLM reads, and how many there are of them.

A new projector is a class here, with its `geometry`, and an entry in `PROJECTORS`. The configuration reads this file, so it
imports no other of ours.
"""

import math
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import nn
from transformers import Blip2QFormerConfig, Blip2QFormerModel, LogitsProcessor

if TYPE_CHECKING:
    from .configuration_slam_asr import SlamAsrConfig

__all__ = [
    "ENCODER_FRAMES_PER_SECOND",
    "ENCODER_SECONDS",
    "PROJECTORS",
    "CtcScores",
    "build_projector",
    "expected_embeddings",
]

# Whisper's: its spectrogram, its second convolution of stride 2, and the window that it was trained on.
MEL_FRAMES_PER_SECOND = 100
ENCODER_FRAMES_PER_SECOND = 50
ENCODER_SECONDS = 30.0
NEVER = -1e30  # a log-probability that keeps sums finite
LEAST = -1e4  # that the CTC head says of a next token: it rules it out, and an LLM's scores are not lost beside it
UNKNOWN_SHARE = 0.02  # of what is no blank: a token in a transcript that the CTC head does not know


@dataclass(frozen=True)
class AudioGeometry:
    """
    How recordings become audio tokens.

    frames_per_token: encoder frames in one audio token; recordings are padded with silence to a multiple of them.
    fixed_tokens: audio tokens of any recording, where their number does not depend on its length; else None.
    """

    frames_per_token: int = 1
    fixed_tokens: int | None = None

    @property
    def in_time_order(self) -> bool:
        """Whether each token stands for a stretch of the recording, one after the other."""
        return self.fixed_tokens is None

    def token_count(self, mel_frames: int) -> int:
        """Audio tokens of a recording of `mel_frames` spectrogram frames."""
        if self.fixed_tokens is not None:
            return self.fixed_tokens
        return (mel_frames + 1) // 2 // self.frames_per_token

    def encoder_frames(self, seconds: float) -> int:
        """Encoder frames of a recording of this length, with its padding to whole audio tokens."""
        units = seconds * ENCODER_FRAMES_PER_SECOND / self.frames_per_token
        return max(1, math.ceil(round(units, 6))) * self.frames_per_token

    def seconds_per_token(self, seconds: Any = ENCODER_SECONDS) -> Any:
        """Seconds that an audio token stands for, in a recording of `seconds`: a number, or a tensor `(batch,)`."""
        if self.fixed_tokens is not None:
            return seconds / self.fixed_tokens
        return self.frames_per_token / ENCODER_FRAMES_PER_SECOND


class ConcatLinearProjector(nn.Module):
    """
    The paper's projector: `k` neighbouring frames joined, then Linear, ReLU, Dropout, Linear, LayerNorm.

    Source: SLAM-ASR (arXiv 2402.08846), with the LayerNorm and dropout of arXiv 2603.27981; modules are named as in its code.
    """

    def __init__(self, config: "SlamAsrConfig") -> None:
        super().__init__()
        self.downsample_rate = config.projector_downsample_rate
        text_size = hidden_size(config)
        self.linear1 = nn.Linear(config.audio_config.d_model * self.downsample_rate, config.projector_hidden_size)
        self.dropout = nn.Dropout(config.projector_dropout)
        self.linear2 = nn.Linear(config.projector_hidden_size, text_size)
        self.layer_norm = nn.LayerNorm(text_size) if config.projector_layer_norm else nn.Identity()

    @staticmethod
    def geometry(settings: Any) -> AudioGeometry:
        """Each token holds `projector_downsample_rate` frames."""
        return AudioGeometry(frames_per_token=settings.projector_downsample_rate)

    def forward(self, frames: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """`(batch, frames, d_model)` and `(batch, frames)` to `(batch, frames // k, hidden)` and its mask."""
        frames, mask = _group(frames, mask, self.downsample_rate)
        hidden = self.dropout(nn.functional.relu(self.linear1(frames)))
        return self.layer_norm(self.linear2(hidden)), mask


class Conv1dProjector(nn.Module):
    """
    A strided convolution over time, ReLU, two Linear layers, LayerNorm, as in the code of arXiv 2603.27981.

    Without the LayerNorm it is SLAM-LLM's `cov1d-linear`, which has a ReLU between its Linear layers instead.
    """

    def __init__(self, config: "SlamAsrConfig") -> None:
        super().__init__()
        self.downsample_rate = config.projector_downsample_rate
        size, text_size = config.audio_config.d_model, hidden_size(config)
        self.conv1d = nn.Conv1d(size, size, kernel_size=self.downsample_rate, stride=self.downsample_rate)
        self.linear1 = nn.Linear(size, config.projector_hidden_size)
        self.between = nn.Identity() if config.projector_layer_norm else nn.ReLU()
        self.linear2 = nn.Linear(config.projector_hidden_size, text_size)
        self.layer_norm = nn.LayerNorm(text_size) if config.projector_layer_norm else nn.Identity()

    @staticmethod
    def geometry(settings: Any) -> AudioGeometry:
        """Each token holds `projector_downsample_rate` frames."""
        return AudioGeometry(frames_per_token=settings.projector_downsample_rate)

    def forward(self, frames: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Shapes as in [`ConcatLinearProjector`]."""
        mask = mask[:, self.downsample_rate - 1 :: self.downsample_rate]
        hidden = nn.functional.relu(self.conv1d(frames.transpose(1, 2)).transpose(1, 2))
        return self.layer_norm(self.linear2(self.between(self.linear1(hidden)))), mask


class QFormerProjector(nn.Module):
    """A fixed number of learned queries that attend to the frames (BLIP-2's Q-Former), then Linear and LayerNorm."""

    def __init__(self, config: "SlamAsrConfig") -> None:
        super().__init__()
        qformer = Blip2QFormerConfig(
            encoder_hidden_size=config.audio_config.d_model, num_hidden_layers=config.projector_num_layers
        )
        self.query = nn.Parameter(torch.empty(1, config.projector_num_queries, qformer.hidden_size).normal_())
        self.qformer = Blip2QFormerModel(qformer)
        self.linear = nn.Linear(qformer.hidden_size, hidden_size(config))
        self.norm = nn.LayerNorm(hidden_size(config))

    @staticmethod
    def geometry(settings: Any) -> AudioGeometry:
        """One token for each query, whatever the recording's length."""
        return AudioGeometry(fixed_tokens=settings.projector_num_queries)

    def forward(self, frames: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """`(batch, frames, d_model)` and `(batch, frames)` to `(batch, queries, hidden)` and a mask of ones."""
        query = self.query.expand(len(frames), -1, -1)
        output = self.qformer(query_embeds=query, encoder_hidden_states=frames, encoder_attention_mask=mask.long())
        return self.norm(self.linear(output.last_hidden_state)), mask.new_ones(query.shape[:2])


def in_float32(device: torch.device) -> AbstractContextManager[None]:
    """Turns autocast off, whose bfloat16 products move a CTC head's log-probabilities by up to a nat."""
    if not torch.is_autocast_enabled(device.type):  # nothing to turn off, and nothing for an export to trace
        return nullcontext()
    return torch.autocast(device.type, enabled=False)


class CtcScores(NamedTuple):
    """Log-probabilities `(batch, audio_tokens, 1 + classes)`, blank first, and which of the frames are sound, `(batch, audio_tokens)`."""

    log_probs: torch.Tensor
    mask: torch.Tensor


class CtcHead(nn.Module):
    """
    CTC over the LLM's own vocabulary: a projected frame is scored against the token embeddings that it is to become.

    `logits = exp(log_scale) / sqrt(hidden) * <frame, e / rms(e)>`, `e` a row of the LLM's input embeddings, and a learned blank (vector
    and bias) as class 0: hidden + 2 parameters in all. The embeddings stay the LLM's; nothing of them is kept here.
    Source of CTC: Graves et al. 2006.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.blank = nn.Parameter(torch.randn(size) * 0.02)
        self.bias = nn.Parameter(torch.zeros(()))
        self.log_scale = nn.Parameter(torch.tensor(10.0).log())

    def forward(self, frames: torch.Tensor, embeddings: torch.Tensor) -> torch.Tensor:
        """
        Log-probabilities `(batch, frames, 1 + classes)`, float32, of blank (class 0) and of the tokens.

        Args:
            frames: projected frames `(batch, frames, hidden)`.
            embeddings: of the classes' tokens, `(classes, hidden)`, of any scale.
        """
        rows = embeddings.float()
        rows = rows / rows.square().mean(-1, keepdim=True).sqrt().clamp(min=1e-6)
        classes = torch.cat([self.blank.float()[None], rows])
        with in_float32(frames.device):
            logits = frames.float() @ classes.T * (self.log_scale.float().exp() / frames.shape[-1] ** 0.5)
        shift = nn.functional.pad(self.bias.float()[None], (0, len(rows)))
        return (logits + shift).log_softmax(-1)


def greedy_ctc(log_probs: torch.Tensor, mask: torch.Tensor) -> list[list[int]]:
    """
    The best class of each frame, repeats joined and blanks left out: class numbers from 1, a list for each utterance.

    Args:
        log_probs: `(batch, frames, classes)` as [`CtcHead`] gives them, with `mask` `(batch, frames)`, bool.
    """
    best = log_probs.argmax(-1).masked_fill(~mask, 0)
    fresh = best != nn.functional.pad(best, (1, 0))[:, :-1]
    return [row[keep].tolist() for row, keep in zip(best, fresh & (best != 0), strict=True)]


def compress_frames(
    frames: torch.Tensor, mask: torch.Tensor, log_probs: torch.Tensor, keep: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Only the frames that say something: blanks are left out, neighbours that say the same token are averaged.

    Args:
        frames, mask: `(batch, frames, hidden)` and `(batch, frames)`.
        log_probs: `(batch, frames, 1 + classes)`, see [`CtcHead`].
        keep: a frame stays where the tokens together have at least this probability; more than 0.5 loses doubtful speech.
    Returns:
        `(batch, kept, hidden)` and its mask; `kept` is the most that an utterance has, 0 where all of them are blank.
    Source: CTC compression, Gaido et al. 2021 (arXiv 2102.01578).
    """
    best = log_probs[..., 1:].argmax(-1)
    stays = mask & (log_probs[..., 0].exp() <= 1 - keep)
    before = nn.functional.pad(stays, (1, 0))[:, :-1] & (best == nn.functional.pad(best, (1, 0))[:, :-1])
    place = (stays & ~before).cumsum(-1) - 1
    kept = int(place.max()) + 1 if place.numel() else 0
    place = place.masked_fill(~stays, kept)  # one place more takes what is left out
    sums = frames.new_zeros(len(frames), kept + 1, frames.shape[-1])
    sums = sums.scatter_add(1, place[..., None].expand_as(frames), frames)
    counts = frames.new_zeros(len(frames), kept + 1).scatter_add(1, place, torch.ones_like(frames[..., 0]))
    counts = counts[:, :kept]
    return sums[:, :kept] / counts.clamp(min=1)[..., None], counts > 0


def expected_embeddings(log_probs: torch.Tensor, embeddings: torch.Tensor) -> torch.Tensor:
    """
    The mean of the token embeddings, weighted by the CTC posteriors of each frame that is no blank: `(batch, frames, hidden)`.

    An LLM reads them as text that is not quite certain, so one that does not learn to read the projector's frames hears too.

    Args:
        log_probs: `(batch, frames, 1 + classes)`, see [`CtcHead`].
        embeddings: of the classes' tokens, `(classes, hidden)`, as the LLM reads them.
    Source: LegoSLM, Ma et al. 2025 (arXiv 2505.11352).
    """
    with in_float32(log_probs.device):
        return log_probs[..., 1:].softmax(-1) @ embeddings.float()


class CtcPrefixScores(LogitsProcessor):
    """
    Joint decoding: each next token is scored by the LLM and by how well the CTC head hears the transcript with it.

    `(1 - weight) * llm + weight * log(P(prefix + token) / P(prefix))`, `P` the CTC probability of all that begins with the prefix; for an
    end token, of the prefix itself. So what was not said is not written, however likely the LLM finds it, and what was said is not left
    out. It goes with greedy decoding, beams, samples and drafts alike.
    Source: Watanabe et al. 2017 (Hybrid CTC/Attention), with sums over frames in place of loops.

    Args:
        scores: of the utterances; their beams or samples stand in neighbouring rows.
        tokens: token ids of the classes.
        ends: the end tokens.
        weight: from 0, the LLM alone, to below 1.
    """

    def __init__(self, scores: CtcScores, tokens: Sequence[int], ends: Iterable[int], weight: float) -> None:
        frames = scores.log_probs.float()
        # One class more, for tokens that the head does not know: a small share of what is no blank.
        unknown = (1 - frames[..., :1].exp()).clamp(min=1e-6).log() + math.log(UNKNOWN_SHARE)
        frames = torch.cat([frames, unknown], dim=-1)
        padding = torch.full_like(frames, NEVER)
        padding[..., 0] = 0.0
        self.frames = torch.where(scores.mask[..., None], frames, padding)
        self.probabilities = self.frames.exp()
        self.tokens, self.ends, self.weight = torch.as_tensor(list(tokens)), sorted(ends), weight
        self.before: torch.Tensor | None = None

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """`scores` `(rows, vocab)` after the new tokens `(rows, new_tokens)`, joined with the CTC head's."""
        batch, vocab = len(self.frames), scores.shape[-1]
        ids = input_ids.to(self.frames.device).reshape(batch, len(scores) // batch, -1)
        if self.before is None:
            self._start(ids.shape[1], vocab)
        else:
            self._go_on(ids)
        self.before = ids
        self.prefixes = self._prefixes()
        heard = (self.prefixes - self.total[..., None])[..., self.classes]
        heard[..., self.ends] = (torch.logaddexp(self.label, self.blank)[..., -1] - self.total)[..., None]
        # Of what goes on from a prefix that it has ruled out the head says nothing.
        heard = heard.clamp(min=LEAST).masked_fill((self.total < NEVER / 2)[..., None], 0.0)
        return (1 - self.weight) * scores + self.weight * heard.reshape(len(scores), vocab).to(scores)

    def _start(self, rows: int, vocab: int) -> None:
        """Nothing is written yet: only blanks."""
        self.classes = torch.full((vocab,), self.frames.shape[-1] - 1, device=self.frames.device)
        self.classes[self.tokens] = torch.arange(1, len(self.tokens) + 1, device=self.frames.device)
        # Log-probabilities `(batch, rows, frames)` of the prefix up to each frame that ends in its last token, or in a blank.
        self.blank = self.frames[:, None, :, 0].cumsum(-1).repeat(1, rows, 1)
        self.label = torch.full_like(self.blank, NEVER)
        self.begin = 0.0  # of the prefix before the first frame
        self.last = self.blank.new_zeros(self.blank.shape[:2], dtype=torch.long)
        self.total = self.blank.new_zeros(self.blank.shape[:2])

    def _go_on(self, ids: torch.Tensor) -> None:
        """Take in the newest token of each row; its prefix may have stood in another row of the utterance before."""
        assert self.before is not None
        parent = (ids[:, :, None, :-1] == self.before[:, None]).all(-1).int().argmax(-1)
        rows = torch.arange(len(ids), device=ids.device)[:, None]
        label, blank, last = self.label[rows, parent], self.blank[rows, parent], self.last[rows, parent]
        newest = self.classes[ids[..., -1]]
        self.total = self.prefixes[rows, parent].gather(-1, newest[..., None])[..., 0]
        enters = self._shifted(torch.where((newest == last)[..., None], blank, torch.logaddexp(label, blank)))
        self.label = _carried(enters, self._of(newest))
        # Of tokens that the head does not know none is the one before again.
        self.begin, self.last = NEVER, newest.masked_fill(newest == self.frames.shape[-1] - 1, 0)
        self.blank = _carried(self._shifted(self.label), self.frames[:, None, :, 0])

    def _prefixes(self) -> torch.Tensor:
        """`(batch, rows, 1 + classes)`: the log-probability of the prefix with each class behind it, whatever follows."""
        enters = self._shifted(torch.logaddexp(self.label, self.blank))
        top = enters.amax(-1, keepdim=True)
        with in_float32(enters.device):
            summed = ((enters - top).exp() @ self.probabilities).clamp(min=1e-37).log() + top
        # The last token again needs a blank between.
        again = (self._shifted(self.blank) + self._of(self.last)).logsumexp(-1, keepdim=True)
        written = (self.last > 0)[..., None]
        return torch.where(written, summed.scatter(-1, self.last[..., None], again), summed)

    def _shifted(self, values: torch.Tensor) -> torch.Tensor:
        """The values of the frame before."""
        return nn.functional.pad(values[..., :-1], (1, 0), value=self.begin)

    def _of(self, classes: torch.Tensor) -> torch.Tensor:
        """The frames' scores `(batch, rows, frames)` of one class in each row."""
        return self.frames.gather(2, classes[:, None].expand(-1, self.frames.shape[1], -1)).transpose(1, 2)


def _carried(enters: torch.Tensor, stays: torch.Tensor) -> torch.Tensor:
    """`x[t] = logaddexp(x[t - 1], enters[t]) + stays[t]` along the last dimension, without a loop."""
    path = stays.cumsum(-1)
    return (path + (enters - (path - stays)).logcumsumexp(-1)).clamp(min=NEVER)


def ctc_loss(
    log_probs: torch.Tensor, mask: torch.Tensor, targets: Sequence[torch.Tensor], count: int | torch.Tensor
) -> torch.Tensor:
    """
    CTC loss, summed over the utterances and divided by `count`. One with more tokens than frames counts nothing.

    Args:
        log_probs, mask: `(batch, frames, classes)` and `(batch, frames)`, bool, frames first.
        targets: class numbers of each utterance, from 1.
    """
    lengths = torch.tensor([len(target) for target in targets], device=log_probs.device)
    joined = torch.cat(list(targets)).to(log_probs.device)
    summed = nn.functional.ctc_loss(
        log_probs.transpose(0, 1), joined, mask.sum(-1), lengths, reduction="sum", zero_infinity=True
    )
    return summed / count


class CtcMixin:
    """For [`SlamAsrForConditionalGeneration`]: what its projector's CTC head says of audio embeddings."""

    config: Any  # a `SlamAsrConfig`, which transformers would look up here by name
    projector: Any
    get_input_embeddings: Any  # of `PreTrainedModel`

    def ctc_log_probs(self, audio: torch.Tensor, tokens: Sequence[int] | None = None) -> torch.Tensor:
        """
        The CTC head's log-probabilities of blank and tokens for audio embeddings `(batch, audio_tokens, hidden)`.

        Args:
            tokens: the classes' token ids; `config.projector_ctc_tokens` when None.
        Returns:
            `(batch, audio_tokens, 1 + tokens)`, float32.
        Raises:
            ValueError: the model has no such head.
        """
        if not self.config.projector_ctc:
            raise ValueError("This model has no CTC head. Train one with `projector: {ctc: true}`.")
        return self.projector.ctc(audio, self._class_embeddings(tokens).to(audio.device))

    def read_frames(self, audio: torch.Tensor, log_probs: torch.Tensor) -> torch.Tensor:
        """
        What a compressing model's LLM reads of each audio embedding `(batch, audio_tokens, hidden)`: itself, or its tokens.

        Args:
            log_probs: the CTC head's of them, `(batch, audio_tokens, 1 + classes)`.
        """
        if self.config.projector_compress != "tokens":
            return audio
        return expected_embeddings(log_probs, self._class_embeddings().to(log_probs.device)).to(audio.dtype)

    @torch.no_grad()
    def _class_embeddings(self, tokens: Sequence[int] | None = None) -> torch.Tensor:
        table = self.get_input_embeddings()
        device = "cpu" if table.weight.is_meta else table.weight.device  # meta: offloaded, and there when it is called
        rows: torch.Tensor = table(torch.tensor(self.ctc_tokens() if tokens is None else tokens, device=device))
        return rows

    def ctc_tokens(self) -> Sequence[int]:
        """The token ids of the CTC head's classes, in order; class 0, the blank, comes before them."""
        tokens = self.config.projector_ctc_tokens
        return tokens if tokens is not None else range(self.config.vocab_size)

    def ctc_transcripts(self, scores: CtcScores) -> list[list[int]]:
        """Token ids of the greedy CTC transcripts."""
        tokens = self.ctc_tokens()
        return [[tokens[index - 1] for index in row] for row in greedy_ctc(scores.log_probs, scores.mask)]

    def ctc_sequences(self, scores: CtcScores, end: int) -> torch.Tensor:
        """The greedy CTC transcripts as `generate` gives tokens: `(batch, tokens)`, ended and filled up with `end`."""
        rows = [torch.tensor([*row, end]) for row in self.ctc_transcripts(scores)]
        return nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=end)

    def ctc_loss(
        self, scores: CtcScores, labels: torch.Tensor, num_items_in_batch: int | torch.Tensor | None = None
    ) -> torch.Tensor:
        """
        CTC loss of the transcripts in `labels` `(batch, length)`, without their end tokens, a label token.

        Tokens that are none of the head's classes are left out of a transcript.
        """
        classes = torch.tensor(self.ctc_tokens(), device=labels.device)
        targets = []
        for row in labels:
            tokens = row[row != -100][:-1]
            found = torch.searchsorted(classes, tokens).clamp(max=len(classes) - 1)
            targets.append(found[classes[found] == tokens] + 1)
        count = num_items_in_batch if num_items_in_batch is not None else (labels != -100).sum().clamp(min=1)
        # A row without any label is a filler that several processes share out: it must teach nothing, not even silence.
        counted = (labels != -100).any(-1).to(scores.log_probs)[:, None, None]
        return ctc_loss(scores.log_probs * counted, scores.mask, targets, count)


PROJECTORS: dict[str, Any] = {
    "concat_linear": ConcatLinearProjector,
    "conv1d": Conv1dProjector,
    "qformer": QFormerProjector,
}


def audio_geometry(settings: Any) -> AudioGeometry:
    """The geometry of the projector that a configuration, or a processor, names with its `projector_...` fields."""
    return PROJECTORS[settings.projector_type].geometry(settings)


def build_projector(config: "SlamAsrConfig") -> nn.Module:
    """The projector that `config.projector_type` names, with torch's own initial weights."""
    projector = PROJECTORS[config.projector_type](config)
    if config.projector_ctc:
        projector.ctc = CtcHead(hidden_size(config))
    return projector


def hidden_size(config: "SlamAsrConfig") -> int:
    """The width of the LLM's embeddings."""
    return config.text_config.get_text_config().hidden_size


def _group(frames: torch.Tensor, mask: torch.Tensor, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Join each `size` frames; a last group that is not full is dropped (the processor pads so that none is)."""
    batch, length, width = frames.shape
    groups = length // size
    grouped = frames[:, : groups * size].reshape(batch, groups, size * width)
    return grouped, mask[:, size - 1 :: size][:, :groups]
