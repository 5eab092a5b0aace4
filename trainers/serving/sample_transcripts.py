"""Transcripts of sample clips by an export's parts, compared with those of the torch model."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import jiwer
import numpy as np
import torch
from numpy.typing import NDArray
from transformers import LogitsProcessor

from modeling_slam_asr import SlamAsrForConditionalGeneration, SlamAsrProcessor
from modeling_slam_asr.generation_slam_asr import TranscriptLimit
from trainers.inference.torch_engine import pipeline_of
from trainers.serving.exported import ExportedPipeline, Generated, LanguageEngine, Request
from trainers.serving.language_model import prompt_embeddings
from trainers.serving.onnx_audio import OnnxAudio

_GREEDY: dict[str, Any] = {"num_beams": 1, "do_sample": False, "repetition_penalty": 1.0, "no_repeat_ngram_size": 0}


class _Chosen(LogitsProcessor):
    """Leaves greedy decoding the one token that the request takes."""

    def __init__(self, request: Request) -> None:
        self.request = request

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        chosen = torch.full_like(scores, -torch.inf)
        chosen[0, self.request.next_token(scores[0].float().numpy())] = 0.0
        return chosen


class TransformersEngine:
    """A causal LM of transformers as an engine, one request at a time and without log-probabilities: for checks."""

    name, joins = "transformers", True

    def __init__(self, llm: Any, precision: str) -> None:
        self.llm, self.precision = llm, precision

    @torch.no_grad()
    def __call__(self, requests: Sequence[Request], ends: Collection[int], log_probs: bool) -> list[Generated]:
        """Of each request what the LLM writes."""
        found = []
        for request in requests:
            embeddings = prompt_embeddings(self.llm.get_input_embeddings(), request)[None]
            row = self.llm.generate(
                inputs_embeds=embeddings,
                attention_mask=torch.ones(embeddings.shape[:2], dtype=torch.long),
                max_new_tokens=request.limit,
                num_beams=1,
                do_sample=False,
                eos_token_id=list(ends),
                stopping_criteria=[TranscriptLimit(torch.tensor([request.limit]))],
                logits_processor=[_Chosen(request)],
            )
            found.append(Generated(row[0].tolist(), []))
        return found


def torch_texts(
    model: SlamAsrForConditionalGeneration, processor: SlamAsrProcessor, samples: Sequence[NDArray[np.float32]]
) -> list[str]:
    """Greedy transcripts by the model itself."""
    pipe = pipeline_of(model, processor, "cpu")
    return [pipe(sound, **_GREEDY)["text"] for sound in samples]


def sample_figures(
    folder: Path,
    llm: LanguageEngine,
    samples: Sequence[NDArray[np.float32]],
    expected: Sequence[str],
    int8: bool = False,
) -> dict[str, float]:
    """
    `sample_wer`: the word error rate of an export's transcripts against the model's own; `samples`: how many there are.

    Args:
        folder: with a manifest and the ONNX part.
        int8: hear with the ONNX part of 8-bit weights.
    """
    pipe = ExportedPipeline(folder, OnnxAudio(folder, int8=int8), llm)
    found = [pipe(sound, **_GREEDY)["text"] for sound in samples]
    return {"sample_wer": errors_a_word(expected, found), "samples": float(len(samples))}


def errors_a_word(expected: Sequence[str], found: Sequence[str]) -> float:
    """Word errors over words of `expected`, or over 1 where it has none: words written for an empty text are errors too."""
    pairs = list(zip(expected, found, strict=True))
    said = [(text, other) for text, other in pairs if text.split()]
    errors = sum(len(other.split()) for text, other in pairs if not text.split())
    if said:
        counts = jiwer.process_words([text for text, _ in said], [other for _, other in said])
        errors += counts.substitutions + counts.deletions + counts.insertions
    return errors / max(sum(len(text.split()) for text in expected), 1)
