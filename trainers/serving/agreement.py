"""How near an exported artefact is to the torch model: figures, the bounds they must keep, and the refusal where they do not."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from modeling_slam_asr import SlamAsrForConditionalGeneration, SlamAsrProcessor
from trainers.errors import UserError
from trainers.gguf_precisions import GGUF_PRECISIONS
from trainers.sound import voice_like

PROBE_SECONDS = 4.0
PROBE_TOKENS = 96
TIE = 0.1  # nats: two tokens that differ by less are equally good

# Upper limits, but for `top1` and the cosines, which are lower ones. `kl` is in nats a position, `max_error` of embeddings in
# units of their root mean square; `ctc_kl` is of the CTC head's scores, in nats a frame.
LLM_BOUNDS: dict[str, dict[str, float]] = {
    "float32": {"kl": 1e-4, "top1": 0.98},
    "bfloat16": {"kl": 2e-2, "top1": 0.90},
    "float16": {"kl": 2e-3, "top1": 0.95},
    **{name: {"kl": precision.kl, "top1": precision.top1} for name, precision in GGUF_PRECISIONS.items()},
}
AUDIO_BOUNDS: dict[str, dict[str, float]] = {
    "float32": {"max_error": 1e-2, "cosine": 0.9999, "batch_error": 1e-2, "ctc_kl": 1e-3},
    "int8": {"cosine": 0.95},
}
# Word error rate of an export's transcripts of sample recordings against the model's own. An audio part in int8 changes words,
# so its bound refuses only what is broken.
SAMPLE_BOUNDS = {
    **{"float32": 0.01, "bfloat16": 0.05, "float16": 0.02, "int8": 0.5},
    **{name: precision.sample_wer for name, precision in GGUF_PRECISIONS.items()},
}
_LOWER_LIMITS = ("top1", "cosine")


@dataclass(frozen=True)
class Probe:
    """
    A request with a transcript whose tokens are drawn by chance, so that the LLM is asked in many ways.

    input_ids: `(1, length)`, 0 in the audio's places; places: bool, `(1, length)`; audio: `(audio_tokens, hidden)` float32.
    """

    input_ids: torch.Tensor
    places: torch.Tensor
    audio: torch.Tensor

    @torch.no_grad()
    def log_probs(self, llm: Any) -> torch.Tensor:
        """What `llm`, with its own token embeddings, says at each place: `(length, vocab)`, float32."""
        embeddings = llm.get_input_embeddings()(self.input_ids)
        embeddings = embeddings.masked_scatter(self.places[..., None], self.audio.to(embeddings))
        return llm(inputs_embeds=embeddings, use_cache=False).logits[0].float().log_softmax(-1)

    def scored(self) -> tuple[list[int], list[int], list[int]]:
        """The token ids before and after the audio, and those of the transcript: for engines that are asked in pieces."""
        row, places = self.input_ids[0].tolist(), self.places[0].nonzero().squeeze(-1).tolist()
        return row[: places[0]], row[places[-1] + 1 : -PROBE_TOKENS], row[-PROBE_TOKENS:]


@torch.no_grad()
def make_probe(model: SlamAsrForConditionalGeneration, processor: SlamAsrProcessor) -> Probe:
    """The probe of a model, from a built-in sound of 4 s."""
    request = processor.apply_transcription_request([voice_like(PROBE_SECONDS)])
    audio = model.get_audio_features(
        request["input_features"], request["input_features_mask"], return_dict=True
    ).pooler_output[None]
    if model.config.projector_compress is not None:
        audio = model.read_frames(audio, model.ctc_log_probs(audio))
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randint(len(processor.tokenizer), (1, PROBE_TOKENS), generator=generator)
    drawn = drawn.clamp(max=model.config.vocab_size - 1)
    ids = torch.cat([request["input_ids"], drawn], dim=1)
    places = ids == model.config.audio_token_id
    return Probe(ids.masked_fill(places, 0), places, audio[0].float())


def llm_agreement(reference: torch.Tensor, found: torch.Tensor) -> dict[str, float]:
    """
    `kl`: the mean Kullback-Leibler divergence from the reference in nats; `top1`: the share of places whose best token is the
    reference's best, or one that the reference finds as good (`TIE`): among tokens drawn by chance such ties are common.

    Args:
        reference, found: log-probabilities `(length, vocab)`.
    """
    divergence = (reference.exp() * (reference - found)).sum(-1).clamp(min=0)
    same = reference.amax(-1) - reference.gather(-1, found.argmax(-1, keepdim=True)).squeeze(-1) <= TIE
    return {"kl": float(divergence.mean()), "top1": float(same.float().mean()), "places": float(len(same))}


def audio_agreement(reference: NDArray[Any], found: NDArray[Any]) -> dict[str, float]:
    """
    `max_error`: the greatest difference in units of the reference's root mean square; `cosine`: the mean over the embeddings.

    Args:
        reference, found: embeddings `(count, hidden)`.
    """
    size = float(np.sqrt(np.mean(np.square(reference)))) or 1.0
    norms = np.linalg.norm(reference, axis=-1) * np.linalg.norm(found, axis=-1)
    cosine = (reference * found).sum(-1) / np.maximum(norms, 1e-12)
    return {
        "max_error": float(np.abs(reference - found).max()) / size,
        "cosine": float(cosine.mean()),
        "embeddings": float(len(reference)),
    }


def check(what: str, figures: Mapping[str, float], bounds: Mapping[str, float]) -> None:
    """
    Raises:
        UserError: naming the figures of `what` that do not keep their bounds.
    """
    problems = []
    for name, bound in bounds.items():
        kept = figures[name] >= bound if name in _LOWER_LIMITS else figures[name] <= bound
        if not kept:  # not `figures < bound`: NaN keeps none
            problems.append(f"{name} is {figures[name]:.3g}, the bound is {bound:g}")
    if problems:
        raise UserError(
            f"{what} does not compute what the torch model does: {'; '.join(problems)}. Nothing was written. Choose a higher "
            "precision, or leave this part out."
        )
