"""What the model says of finished transcripts: a second look by the LLM, and where the CTC head hears each token."""

import copy
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from .generation_slam_asr import llm_arguments
from .words_slam_asr import align_tokens

__all__ = [
    "ALIGNMENT_HEADS",
    "SecondLook",
    "align_transcripts",
    "alignment_matrix",
    "eager_twin",
    "look_again",
]

ALIGNMENT_HEADS = 8


@torch.no_grad()
def align_transcripts(
    model: Any, transcripts: Sequence[Sequence[int]], **audio: torch.Tensor | None
) -> list[np.ndarray | None]:
    """
    Where the CTC head hears each token of finished transcripts, by forced alignment.

    Args:
        model: a [`SlamAsrForConditionalGeneration`] with a CTC head.
        transcripts: token ids of each utterance, without end tokens.
        audio: the arguments of `model.get_audio_features`.
    Returns:
        For each utterance `(tokens, 3)` as [`align_tokens`] gives it, in audio embeddings; None where the transcript has more
        tokens than the audio has embeddings.
    """
    frames, mask = model.get_audio_features(**audio, return_dict=True).padded()
    known = set(model.ctc_tokens())
    found: list[np.ndarray | None] = []
    for row, transcript in enumerate(transcripts):
        classes = sorted(known | set(transcript))  # the LLM may write pieces that the head was not trained on
        log_probs = model.ctc_log_probs(frames[row : row + 1, mask[row]], classes)[0].cpu().numpy()
        place = {token: index + 1 for index, token in enumerate(classes)}
        try:
            found.append(align_tokens(log_probs, [place[token] for token in transcript]))
        except ValueError:
            found.append(None)
    return found


def alignment_matrix(
    attentions: Sequence[torch.Tensor], audio: torch.Tensor, heads: int = ALIGNMENT_HEADS
) -> np.ndarray:
    """
    One map of which audio each transcript token listens to.

    The mean of the heads whose attention moves most steadily through the audio from token to token, the steadier with the
    greater weight.

    Args:
        attentions: of each layer `(heads, tokens, length)`: rows are the positions that predict the transcript's tokens.
        audio: indices of the audio positions, `(audio_positions,)`.
    Returns:
        `(tokens, audio_positions)`, standardised over the tokens.
    """
    weights = torch.cat([layer[:, :, audio].float().cpu() for layer in attentions])
    mass = weights.sum(-1)
    shares = weights / mass.clamp(min=1e-9)[..., None]
    tokens, positions = shares.shape[1:]
    if tokens < 2 or positions < 2:
        return shares.mean(0).numpy()
    centres = shares @ torch.arange(positions, dtype=torch.float32)
    steps = torch.arange(tokens, dtype=torch.float32)
    centres_off, steps_off = centres - centres.mean(-1, keepdim=True), steps - steps.mean()
    steady = (centres_off * steps_off).sum(-1) / (centres_off.norm(dim=-1) * steps_off.norm()).clamp(min=1e-9)
    reach = centres_off.std(-1) / (positions / 12**0.5)  # 1 for a head that walks through the whole recording
    scores, best = (steady * reach.clamp(max=1.0)).topk(min(heads, len(shares)))
    chosen = shares[best]
    chosen = (chosen - chosen.mean(1, keepdim=True)) / chosen.std(1, keepdim=True).clamp(min=1e-6)
    # A small LLM has fewer good heads than are asked for; the fourth power leaves the others little say.
    weights = scores.clamp(min=1e-3) ** 4
    return torch.einsum("h,htp->tp", weights / weights.sum(), chosen).numpy()


def eager_twin(language_model: Any) -> Any:
    """
    An LLM that shares every tensor of this one and computes attention the plain way, the only one that gives weights back.

    Whoever else uses the LLM meanwhile, in another thread, sees nothing of it.
    """
    tensors = itertools.chain(language_model.parameters(), language_model.buffers())
    twin = copy.deepcopy(language_model, {id(tensor): tensor for tensor in tensors})
    twin.set_attn_implementation("eager")
    return twin


@dataclass
class SecondLook:
    """
    log_probs: natural logarithm of each token's probability, `(tokens,)`, float32.
    attentions: of each layer `(heads, tokens, length)`: rows are the positions that predict the tokens; None if not asked for.
    audio: indices of the audio embeddings within `length`.
    """

    log_probs: torch.Tensor
    attentions: list[torch.Tensor] | None
    audio: torch.Tensor

    @property
    def confidence(self) -> float:
        """`exp` of the mean log-probability of a token: the geometric mean of the tokens' probabilities, from 0 to 1."""
        return math.exp(float(self.log_probs.double().mean())) if len(self.log_probs) else 0.0


@torch.no_grad()
def look_again(
    model: Any,
    transcripts: Sequence[Sequence[int]],
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor,
    attentions: bool = False,
    **audio: Any,
) -> list[SecondLook]:
    """
    One forward pass of the LLM over request and finished transcript, an utterance at a time.

    Args:
        model: a [`SlamAsrForConditionalGeneration`].
        transcripts: generated token ids of each utterance, without padding.
        input_ids, attention_mask: the request, `(batch, length)`, padded at either side.
        attentions: give back attention weights too.
        audio: the audio arguments of `model.forward`.
    """
    merged = model.merge_inputs(input_ids, attention_mask, **audio)
    table = model.get_input_embeddings()
    language_model = eager_twin(model.language_model) if attentions else model.language_model
    few = "logits_to_keep" in llm_arguments(language_model.__class__)
    looks = []
    for row, transcript in enumerate(transcripts):
        held = merged.attention_mask[row].bool()
        request = merged.inputs_embeds[row, held]
        places = merged.audio[row, held].nonzero().squeeze(-1).cpu()
        if not len(transcript):
            looks.append(SecondLook(torch.zeros(0), [] if attentions else None, places))
            continue
        tokens = torch.tensor(list(transcript), device=request.device)
        whole = torch.cat([request, table(tokens).to(request)])[None]
        output = language_model(
            inputs_embeds=whole,
            attention_mask=torch.ones(whole.shape[:2], dtype=torch.long, device=whole.device),
            output_attentions=attentions,
            use_cache=False,
            **({"logits_to_keep": len(tokens) + 1} if few else {}),
        )
        first = len(request) - 1  # each token is predicted at the place before it
        logits = output.logits[0, -len(tokens) - 1 : -1].float()
        log_probs = logits.log_softmax(-1).gather(-1, tokens[:, None].to(logits.device)).squeeze(-1).cpu()
        rows = [layer[0, :, first:-1].cpu() for layer in output.attentions] if attentions else None
        looks.append(SecondLook(log_probs, rows, places))
    return looks
