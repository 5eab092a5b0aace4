"""What a model does at the edges: silence, noise, batches. Measured on the weights that are published, for their card."""

from typing import Any, NotRequired, TypedDict

from trainers import sound

SILENCE_SECONDS = (1.0, 5.0, 15.0)
NOISE_SECONDS = (1.0, 5.0, 15.0)
BATCH_SECONDS = (0.6, 1.3, 2.1, 3.4)
SHOWN_CHARACTERS = 200


class Edge(TypedDict):
    """What the pipeline answers where nobody speaks, and whether it says so."""

    seconds: float
    text: str
    flagged: bool


class BatchCheck(TypedDict):
    """How many of several recordings have the same transcript in a batch as alone; the difference is of the first token's logits."""

    recordings: int
    seconds: NotRequired[list[float]]
    same_transcripts: int
    largest_logit_difference: float


class Limits(TypedDict, total=False):
    """The content of `limits.json`; empty where nothing was measured. `max_seconds` are those of one call."""

    model_fingerprint: str
    max_seconds: float
    silence: list[Edge]
    noise: list[Edge]
    batch: BatchCheck


def measure_limits(model: Any, processor: Any, fingerprint: str) -> Limits:
    """
    What the model does with digital silence, white noise and batches.

    Args:
        model, processor: a loaded SLAM-ASR model and its processor.
        fingerprint: of the weights; the figures are used for these weights only.
    """
    from trainers.inference.torch_engine import pipeline_of

    transcribe = pipeline_of(model, processor)

    def edge(seconds: float, samples: Any) -> Edge:
        answer = transcribe({"array": samples, "sampling_rate": sound.RATE})
        flagged = bool(answer.get("no_speech"))
        return {"seconds": seconds, "text": answer["text"][:SHOWN_CHARACTERS], "flagged": flagged}

    return {
        "model_fingerprint": fingerprint,
        "max_seconds": processor.max_seconds,
        "silence": [edge(seconds, sound.silence(seconds)) for seconds in SILENCE_SECONDS],
        "noise": [edge(seconds, sound.noise(seconds)) for seconds in NOISE_SECONDS],
        "batch": _batch(model, processor),
    }


def _batch(model: Any, processor: Any) -> BatchCheck:
    import torch

    def heard(recordings: list[Any]) -> tuple[torch.Tensor, list[str]]:
        """The logits of the first token `(recordings, vocabulary)`, and the transcripts."""
        inputs = processor.apply_transcription_request(recordings).to(model.device)
        with torch.no_grad():
            logits = model(**inputs).logits[:, -1].float()
        return logits, processor.batch_decode(model.generate(**inputs), skip_special_tokens=True)

    recordings = [sound.voice_like(seconds, seed=index) for index, seconds in enumerate(BATCH_SECONDS)]
    joint, texts = heard(recordings)
    alone = [heard([recording]) for recording in recordings]
    difference = max(float((one - own[0]).abs().max()) for one, (own, _) in zip(joint, alone, strict=True))
    # Two digits: the last bits depend on the machine, and would make the same model's file differ.
    return {
        "recordings": len(recordings),
        "seconds": list(BATCH_SECONDS),
        "same_transcripts": sum(text == own[0] for text, (_, own) in zip(texts, alone, strict=True)),
        "largest_logit_difference": float(f"{difference:.1e}"),
    }
