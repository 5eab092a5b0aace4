"""The systems that are compared. Each is made in a process of its own, see `worker.py`."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModelForCausalLM
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from benchmarks.real_speech.baselines import Recognise, faster_whisper, whisper
from benchmarks.speed.ceilings import Work
from modeling_slam_asr.transcripts_slam_asr import token_limit
from trainers.engines import load_pipeline
from trainers.errors import UserError
from trainers.serving.exported import ExportedPipeline, Generated, LanguageEngine, Request
from trainers.serving.llama_cpp_engine import LlamaCpp
from trainers.serving.manifest import read_manifest, require_part
from trainers.serving.onnx_audio import Heard, OnnxAudio
from trainers.sound import RATE

Samples = NDArray[np.float32]
BYTES_A_WEIGHT = {"f16": 2.0, "q8_0": 34 / 32, "q4_k_m": 4.85 / 8}  # of a GGUF file
TORCH, PLAIN, LLAMA_CPP = "torch-", "plain-", "llama_cpp-"


@dataclass(frozen=True)
class Setup:
    """What systems are made of: folders, the language that is spoken, threads; `exported` is an export of `model`."""

    model: Path
    exported: Path | None
    whisper: Path | None
    faster_whisper: Path | None
    language: str
    threads: int


@dataclass(frozen=True)
class System:
    """
    precision: of the weights. work: what the model computed, where that can be counted. batches: whether recordings go through together.
    """

    recognise: Recognise
    precision: str
    work: Work | None = None
    batches: bool = True


def make(name: str, setup: Setup) -> System:
    """
    Args:
        name: `torch-DTYPE`, `llama_cpp-PRECISION`, `plain-DTYPE`, `whisper`, `faster-whisper-COMPUTE_TYPE`.
    Raises:
        UserError: what the system needs was not named, or is not installed.
    """
    torch.set_num_threads(setup.threads)
    if name.startswith(TORCH):
        return by_torch(setup, name.removeprefix(TORCH))
    if name.startswith(PLAIN):
        return plain(setup, name.removeprefix(PLAIN))
    if name.startswith(LLAMA_CPP):
        return by_llama_cpp(setup, name.removeprefix(LLAMA_CPP))
    if name == "whisper":
        return System(whisper(_given(setup.whisper, "--whisper"), setup.language), "float32")
    if name.startswith("faster-whisper-"):
        kind = name.removeprefix("faster-whisper-")
        folder = _given(setup.faster_whisper, "--faster-whisper")
        return System(faster_whisper(folder, setup.language, kind), kind, batches=False)
    raise UserError(f"There is no system {name!r}.")


def _given(folder: Path | None, option: str) -> Path:
    if folder is None:
        raise UserError(f"not measured: {option} was not given")
    return folder


def _options(beams: int, limit: int | None) -> dict[str, Any]:
    return {"num_beams": beams, **({} if limit is None else {"max_new_tokens": limit})}


def by_torch(setup: Setup, dtype: str) -> System:
    """The model's own pipeline."""
    pipe: Any = load_pipeline(setup.model, device="cpu", dtype=dtype)
    work = count_torch(pipe.model.audio_encoder, pipe.model.language_model, dtype)

    def recognise(sounds: list[Samples], beams: int = 1, limit: int | None = None) -> list[str]:
        answers = pipe(sounds, batch_size=len(sounds), progress=False, **_options(beams, limit))
        return [answer["text"] for answer in answers]

    return System(recognise, dtype, work)


def by_llama_cpp(setup: Setup, precision: str) -> System:
    """The export's pipeline."""
    folder = _given(setup.exported, "an export")
    manifest = read_manifest(folder)
    path = folder / require_part(manifest, folder, f"gguf-{precision}")["path"]
    llm = LlamaCpp(path, precision, threads=setup.threads)
    head, size = llm.vocabulary * llm.hidden, path.stat().st_size
    weights = int(size / BYTES_A_WEIGHT[precision])
    work = Work(manifest["parameters"]["encoder"], weights - head, head, size, "float32")
    audio = CountedAudio(folder, int8="onnx-int8" in manifest["parts"], threads=setup.threads)
    audio.work = work
    pipe = ExportedPipeline(folder, audio, CountedLlm(llm, work))

    def recognise(sounds: list[Samples], beams: int = 1, limit: int | None = None) -> list[str]:
        return [answer["text"] for answer in pipe(sounds, batch_size=len(sounds), **_options(beams, limit))]

    return System(recognise, precision, work)


class CountedAudio(OnnxAudio):
    """An export's audio part, whose calls are counted in `work`."""

    work: Work

    def hear(self, features: Sequence[NDArray[np.float32]]) -> list[Heard]:
        """The same, counted."""
        self.work.encoder_calls += 1
        self.work.encoder_frames += len(features) * max(item.shape[1] for item in features) // 2
        return super().hear(features)


class CountedLlm:
    """An engine's LLM, whose passes are counted: one for each request, then one for each token of the longest answer."""

    def __init__(self, llm: LanguageEngine, work: Work) -> None:
        self.llm, self.work = llm, work
        self.name, self.precision, self.joins = llm.name, llm.precision, llm.joins

    def __call__(self, requests: Sequence[Request], ends: Collection[int], log_probs: bool) -> list[Generated]:
        answers = self.llm(requests, ends, log_probs)
        self.work.passes += [(len(one.before) + len(one.audio) + len(one.after), 1) for one in requests]
        lengths = [len(answer.tokens) for answer in answers]
        rows = [sum(length > step for length in lengths) for step in range(1, max(lengths, default=1))]
        self.work.passes += [(count, count) for count in rows]
        return answers


def plain(setup: Setup, dtype: str) -> System:
    """
    What one would write without this project, with the same weights: Whisper's encoder on 30 s whatever the recording's length, the
    projector, `generate` of the LLM with LoRA merged. Answers have the limit of ours, so that none rambles for longer.
    """
    pipe: Any = load_pipeline(setup.model, device="cpu", dtype=dtype)
    ours, processor = pipe.model, pipe.processor
    kind = getattr(torch, dtype)
    audio_config = type(ours.config.audio_config)(
        **{**ours.config.audio_config.to_dict(), "encoder_layers": len(ours.audio_encoder.layers)}
    )
    encoder = WhisperEncoder(audio_config).eval().to(kind)
    encoder.load_state_dict(ours.audio_encoder.state_dict())
    llm: Any = AutoModelForCausalLM.from_config(ours.language_model.config).eval().to(kind)
    llm.load_state_dict(ours.language_model.state_dict(), strict=False)
    llm.tie_weights()
    llm.generation_config = ours.generation_config
    projector, before_after = ours.projector, processor.around_audio()
    ours.language_model = ours.audio_encoder = torch.nn.Identity()
    per_second = ours.config.max_tokens_per_second
    work = count_torch(encoder, llm, dtype)

    @torch.inference_mode()
    def recognise(sounds: list[Samples], beams: int = 1, limit: int | None = None) -> list[str]:
        features = processor.feature_extractor(sounds, sampling_rate=RATE, return_tensors="pt").input_features
        frames = encoder(features.to(kind)).last_hidden_state
        heard = projector(frames, torch.ones(frames.shape[:2], dtype=torch.bool))[0]
        embed = llm.get_input_embeddings()
        first, last = (embed(torch.tensor([ids] * len(sounds), dtype=torch.long)) for ids in before_after)
        embeddings = torch.cat([first, heard, last], dim=1)
        longest = max(len(sound) for sound in sounds) / RATE
        tokens = llm.generate(
            inputs_embeds=embeddings, attention_mask=torch.ones(embeddings.shape[:2], dtype=torch.long), do_sample=False,
            num_beams=beams, max_new_tokens=token_limit(longest, per_second) if limit is None else limit,
        )  # fmt: skip
        return [str(text).strip() for text in processor.tokenizer.batch_decode(tokens, skip_special_tokens=True)]

    return System(recognise, dtype, work)


def count_torch(encoder: Any, llm: Any, dtype: str) -> Work:
    """Counts what an encoder and a causal LLM compute from now on."""
    embeddings = {id(module.weight) for module in (llm.get_input_embeddings(), llm.get_output_embeddings())}
    body = [weight for weight in llm.parameters() if id(weight) not in embeddings]
    head = llm.get_output_embeddings().weight
    work = Work(
        encoder_size=sum(weight.numel() for weight in encoder.parameters()),
        llm_size=sum(weight.numel() for weight in body),
        head_size=head.numel(),
        llm_bytes=sum(weight.nbytes for weight in [*body, head]),
        precision=dtype,
    )

    def encoded(_: Any, __: Any, output: Any) -> None:
        work.encoder_calls += 1
        work.encoder_frames += output.last_hidden_state.shape[0] * output.last_hidden_state.shape[1]

    def passed(_: Any, __: Any, output: Any) -> None:
        rows, length = output.last_hidden_state.shape[:2]
        work.passes.append((rows * length, rows))

    encoder.register_forward_hook(encoded)
    llm.get_decoder().register_forward_hook(passed)
    return work
