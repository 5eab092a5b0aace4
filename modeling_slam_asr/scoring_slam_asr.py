"""A second look at finished transcripts: how probable each token was and, if asked for, which audio it listened to."""

import math
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from .timestamps_slam_asr import eager_attention


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
        attentions: give back attention weights too; the LLM computes attention in its plain (`eager`) form meanwhile.
        audio: the audio arguments of `model.forward`.
    """
    embeddings = model.embed_inputs(input_ids, **audio)
    table = model.get_input_embeddings()
    looks = []
    for row, transcript in enumerate(transcripts):
        held = attention_mask[row].bool()
        request = embeddings[row, held]
        places = (input_ids[row, held] == model.config.audio_token_id).nonzero().squeeze(-1).cpu()
        if not len(transcript):
            looks.append(SecondLook(torch.zeros(0), [] if attentions else None, places))
            continue
        tokens = torch.tensor(list(transcript), device=request.device)
        whole = torch.cat([request, table(tokens).to(request)])[None]
        first = len(request) - 1  # each token is predicted at the place before it
        with eager_attention(model.language_model) if attentions else nullcontext():
            output = model(
                inputs_embeds=whole,
                attention_mask=torch.ones(whole.shape[:2], dtype=torch.long, device=whole.device),
                output_attentions=attentions,
                use_cache=False,
            )
        logits = output.logits[0, first:-1].float()
        log_probs = logits.log_softmax(-1).gather(-1, tokens[:, None].to(logits.device)).squeeze(-1).cpu()
        rows = [layer[0, :, first:-1].cpu() for layer in output.attentions] if attentions else None
        looks.append(SecondLook(log_probs, rows, places))
    return looks
