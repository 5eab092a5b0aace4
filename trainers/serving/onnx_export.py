"""Encoder, projector and CTC head of a model as ONNX, for any batch and any length up to the encoder's 30 s."""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from modeling_slam_asr import SlamAsrForConditionalGeneration, SlamAsrProcessor
from modeling_slam_asr.processing_slam_asr import pad_features
from modeling_slam_asr.projector_slam_asr import expected_embeddings
from trainers.errors import UserError
from trainers.serving.agreement import audio_agreement
from trainers.sound import voice_like

PROBE_SECONDS = (4.0, 0.7)
DRAWN_LENGTHS = 3  # recordings more, of lengths drawn by chance
_EXAMPLE_SECONDS = (2.0, 1.0)
_OPSET = 20


class AudioPart(nn.Module):
    """From `(batch, mel_bins, mel_frames)` and its mask to audio embeddings, their mask and, with a CTC head, its scores."""

    classes: torch.Tensor

    def __init__(self, model: SlamAsrForConditionalGeneration) -> None:
        super().__init__()
        self.model = model
        if model.config.projector_ctc:
            rows = model.get_input_embeddings()(torch.tensor(list(model.ctc_tokens())))
            self.register_buffer("classes", rows.detach().float().clone(), persistent=False)

    def forward(self, input_features: torch.Tensor, input_features_mask: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The mask comes back as int64 `(batch, audio_tokens)`; scores are `(batch, audio_tokens, 1 + classes)`."""
        # As `get_audio_features`, whose embeddings stand in a row without padding: a graph's shapes must not depend on values.
        encoder = self.model.audio_encoder
        depth = len(encoder.layers)
        states, frames_mask = encoder.hidden_states_at(input_features, input_features_mask, [depth])
        frames = encoder.layer_norm(states[depth]).masked_fill(~frames_mask[..., None], 0.0)
        embeddings, mask = self.model.projector(frames, frames_mask)
        if not self.model.config.projector_ctc:
            return embeddings, mask.long()
        scores = self.model.projector.ctc(embeddings, self.classes)
        if self.model.config.projector_compress == "tokens":
            embeddings = expected_embeddings(scores, self.classes)
        return embeddings, mask.long(), scores


def export_onnx(model: SlamAsrForConditionalGeneration, processor: SlamAsrProcessor, path: Path) -> None:
    """
    Write `path`; weights beyond 2 GB lie beside it as `NAME.data`.

    Args:
        model: in float32, without LoRA, in evaluation mode.
    Raises:
        UserError: when torch cannot export it.
    """
    features, mask = pad_features([processor.extract_features(voice_like(seconds)) for seconds in _EXAMPLE_SECONDS])
    batch, frames = torch.export.Dim("batch"), torch.export.Dim("mel_frames")
    if processor.pad_to_30s:
        frames = torch.export.Dim.STATIC
    outputs = ["audio_embeddings", "audio_mask", *(["ctc_log_probs"] if model.config.projector_ctc else [])]
    try:
        with quiet():
            program: Any = torch.onnx.export(
                AudioPart(model).eval(),
                (features, mask),
                dynamo=True,
                input_names=["input_features", "input_features_mask"],
                output_names=outputs,
                dynamic_shapes=({0: batch, 2: frames}, {0: batch, 1: frames}),
                opset_version=_OPSET,
                verbose=False,
            )
            program.save(path, external_data=_weight_bytes(model) > 1 << 30)
    except torch.onnx.errors.OnnxExporterError as error:
        reason = str(error.__cause__ or error).strip().splitlines()[0]
        raise UserError(
            f"torch cannot export this model's encoder and projector ({model.config.projector_type}) as ONNX: {reason} Use "
            "--hf-only."
        ) from error


def quantise_onnx(source: Path, target: Path) -> None:
    """
    Write `target`: the matrix products of `source` with int8 weights, activations quantised as they come.

    Weights have 7 bits: processors without VNNI add pairs of products in 16 bits, which full 8-bit weights overflow.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with quiet():
        quantize_dynamic(
            source, target, op_types_to_quantize=["MatMul", "Gemm"], weight_type=QuantType.QInt8, per_channel=True,
            reduce_range=True,
            use_external_data_format=source.with_name(source.name + ".data").exists(),
        )  # fmt: skip


def probe_features(processor: SlamAsrProcessor) -> list[NDArray[np.float32]]:
    """Spectrograms `(mel_bins, mel_frames)` of built-in sounds: two lengths, and some that are drawn by chance."""
    drawn = np.random.default_rng(0).uniform(0.1, min(12.0, processor.max_seconds), DRAWN_LENGTHS)
    return [
        processor.extract_features(voice_like(seconds, seed=index))
        for index, seconds in enumerate([*PROBE_SECONDS, *drawn.tolist()])
    ]


@torch.no_grad()
def torch_embeddings(
    model: SlamAsrForConditionalGeneration, features: Sequence[NDArray[np.float32]]
) -> list[list[NDArray[np.float32]]]:
    """What the torch model gives for each recording alone: embeddings and, with a CTC head, its scores."""
    found = []
    for item in features:
        embeddings = model.get_audio_features(*pad_features([item]), return_dict=True).pooler_output[None]
        scores = model.ctc_log_probs(embeddings) if model.config.projector_ctc else None
        outputs = [embeddings] if scores is None else [model.read_frames(embeddings, scores), scores]
        found.append([output[0].float().numpy() for output in outputs])
    return found


def audio_figures(
    path: Path, features: Sequence[NDArray[np.float32]], expected: Sequence[Sequence[NDArray[np.float32]]]
) -> dict[str, float]:
    """
    How near an ONNX file is to the torch model: [`audio_agreement`] of every recording alone, `batch_error` of all of them in one
    padded batch against alone, and `ctc_kl` of a CTC head's scores.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    try:
        alone = [_run(session, [item]) for item in features]
        together = _run(session, features)
    except Exception as error:  # onnxruntime's own exceptions have no public class
        reason = " ".join(str(error).split())
        raise UserError(f"{path.name} does not take any batch and length: {reason[:300]} Use --hf-only.") from error
    for single, wanted in zip(alone, expected, strict=True):
        if single[0][0].shape != wanted[0].shape:
            raise UserError(f"{path.name} gives {len(single[0][0])} embeddings where torch gives {len(wanted[0])}.")
    wanted_rows = np.concatenate([item[0] for item in expected])
    rows = np.concatenate([item[0][0] for item in alone])
    batched = np.concatenate(together[0])
    figures = audio_agreement(wanted_rows, rows)
    figures["batch_error"] = audio_agreement(rows, batched)["max_error"]
    if len(expected[0]) > 1:
        scores, found = (
            np.concatenate(rows) for rows in ([item[1] for item in expected], [item[1][0] for item in alone])
        )
        # Never below 0 but where `found` are no log-probabilities.
        figures["ctc_kl"] = float(np.abs((np.exp(scores) * (scores - found)).sum(-1)).mean())
    return figures


def _run(session: Any, features: Sequence[NDArray[np.float32]]) -> list[list[NDArray[np.float32]]]:
    """For each output but the mask, a list of what it holds for each recording."""
    batch, mask = pad_features(features)
    outputs = session.run(None, {"input_features": batch.numpy(), "input_features_mask": mask.numpy()})
    used = outputs[1].astype(bool)
    return [
        [row[keep] for row, keep in zip(output, used, strict=True)]
        for place, output in enumerate(outputs)
        if place != 1
    ]


def _weight_bytes(model: SlamAsrForConditionalGeneration) -> int:
    parts = (model.audio_encoder, model.projector)
    return sum(p.numel() * p.element_size() for part in parts for p in part.parameters())


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the exporters' own lines, which are about their insides."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
