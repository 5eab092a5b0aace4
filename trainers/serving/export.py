"""Export a model: artefacts that other engines read, each checked against the torch model, in a folder that is whole or not there."""

import importlib.util
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from modeling_slam_asr import SlamAsrForConditionalGeneration, SlamAsrProcessor
from modeling_slam_asr.configuration_slam_asr import PACKAGE_VERSION
from modeling_slam_asr.transcripts_slam_asr import LANGUAGE_NAMES, SPARE_TOKENS
from modeling_slam_asr.windows_slam_asr import default_window, window_sizes
from trainers.errors import UserError
from trainers.files import scratch_folder, write_json
from trainers.gguf_precisions import GGUF_PRECISIONS
from trainers.provenance import EXPORT_MANIFEST
from trainers.serving import gguf_file, manifest
from trainers.serving.agreement import (
    AUDIO_BOUNDS,
    LLM_BOUNDS,
    SAMPLE_BOUNDS,
    Probe,
    check,
    llm_agreement,
    make_probe,
)
from trainers.serving.exported import LanguageEngine
from trainers.serving.language_model import load_llm, write_llm, write_tokenizer
from trainers.serving.sample_transcripts import TransformersEngine, sample_figures, torch_texts
from trainers.sound import voice_like

_PACKAGES = {"onnx": ("onnx", "onnxscript", "onnxruntime"), "gguf": ("gguf",)}
LLM_FOLDER = "llm"
AUDIO_FILE, INT8_FILE, MEL_FILE = "audio/audio.onnx", "audio/audio.int8.onnx", "audio/mel_filters.npy"
_SAMPLE_SECONDS = (2.0, 1.0)  # of built-in sounds


@dataclass(frozen=True)
class Wanted:
    """
    What an export is to hold; the tokenizer, the LLM's configuration and the settings are always there.

    onnx: encoder, projector and CTC head. int8: the same with 8-bit weights too. gguf: precisions of the LLM as GGUF.
    llm_weights: those of the Hugging Face folder.
    """

    onnx: bool = True
    int8: bool = False
    gguf: Sequence[str] = ()
    llm_weights: bool = True


def check_wanted(wanted: Wanted) -> None:
    """
    Raises:
        UserError: when the parts do not go together, or need packages that are not installed.
    """
    if wanted.int8 and not wanted.onnx:
        raise UserError("--int8 is about the ONNX part, which --hf-only leaves out. Give one of the two.")
    for precision in wanted.gguf:
        gguf_file.check_precision(precision)
    needed = [*(_PACKAGES["onnx"] if wanted.onnx else ()), *(_PACKAGES["gguf"] if wanted.gguf else ())]
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            f'This export needs {", ".join(missing)}: `pip install "slam-asr[export]"`. --hf-only needs none of them.'
        )


def export_model(
    model: SlamAsrForConditionalGeneration,
    processor: SlamAsrProcessor,
    folder: str | os.PathLike[str],
    wanted: Wanted,
    *,
    name: str = "",
    llm_dtype: torch.dtype = torch.float32,
    samples: Sequence[NDArray[np.float32]] = (),
    say: Callable[[str], None] = print,
) -> manifest.Manifest:
    """
    Write an export to `folder`, which must not exist yet or be empty.

    Args:
        model: in float32, on the CPU. Its LoRA is merged and its LLM rounded to `llm_dtype`: it is used up.
        name: what the manifest calls the model.
        llm_dtype: of the Hugging Face folder's weights, from which the GGUF files are made.
        samples: recordings of `(samples,)` at 16 kHz whose transcripts by each part must be those of the model; without any, the
            transcripts of built-in sounds are compared, and nothing is refused for them: they are no speech.
        say: is told what is being done, and each part's figures.
    Raises:
        UserError: for a folder with content, an LLM that a format does not know, or a part that does not compute what the
            torch model does. Nothing is left behind.
    """
    check_wanted(wanted)
    config = model.language_model.config.get_text_config()
    if wanted.gguf:
        gguf_file.check_architecture(config)
    if wanted.onnx and not model.config.audio_geometry.in_time_order:
        raise UserError(
            f"The projector is a {model.config.projector_type}, whose ONNX graph would hold for one size of batch only. Use --hf-only."
        )
    model.eval()
    with _whole(Path(folder)) as building:
        say("computing what the torch model says of built-in sounds")
        probe = make_probe(model, processor)
        expected = probe.log_probs(model.language_model)
        parts = _Parts(model, processor, building, wanted, say)
        write_settings = _settings_of(model, processor)
        if wanted.onnx:
            from trainers.serving.onnx_export import probe_features, torch_embeddings

            features = probe_features(processor)
            embeddings = torch_embeddings(model, features)
            sounds = list(samples) or [voice_like(seconds) for seconds in _SAMPLE_SECONDS]
            texts = torch_texts(model, processor, sounds)
        model.merge_lora()
        if wanted.onnx:
            parts.export_audio(features, embeddings)
        parts.export_llm(llm_dtype, probe, expected)
        content: manifest.Manifest = {
            "format": manifest.FORMAT,
            "produced_by": "slam-asr export",
            "package_version": PACKAGE_VERSION,
            "model": name,
            "parts": parts.found,
            **write_settings,
            "files": manifest.files_of(building),
        }
        write_json(building / EXPORT_MANIFEST, content)
        if wanted.onnx:
            say("transcribing sample recordings with the parts together")
            _check_samples(building, content, sounds, texts, bool(samples), say)
            write_json(building / EXPORT_MANIFEST, content)
    return content


def _check_samples(
    folder: Path,
    content: manifest.Manifest,
    sounds: Sequence[NDArray[np.float32]],
    texts: Sequence[str],
    bounded: bool,
    say: Callable[[str], None],
) -> None:
    """Add `sample_wer` to the figures of each LLM part that can be run here, and with the first of them to the int8 audio part's."""
    waiting = [name for name in content["parts"] if name == "onnx-int8"]
    runs = 0
    for name, part in content["parts"].items():
        llm = _llm_to_run(folder / part["path"], name, part["precision"])
        if llm is None:
            continue
        for checked in [name, *waiting]:
            entry = content["parts"][checked]
            figures = sample_figures(folder, llm, sounds, texts, int8=checked == "onnx-int8")
            if bounded:
                bounds = {"sample_wer": SAMPLE_BOUNDS[entry["precision"]]}
                check(f"The part {checked}", figures, bounds)
                entry["bounds"] |= bounds
            entry["check"] |= figures
            wer = figures["sample_wer"]
            say(f"{checked}: word error rate against the model's own transcripts {wer:.3g} on {len(sounds)} recordings")
        waiting, runs = [], runs + 1
    if not runs:
        say("no LLM part can be run here without llama-cpp-python: no transcripts were compared")


def _llm_to_run(path: Path, part: str, precision: str) -> LanguageEngine | None:
    """An engine for an LLM part that can be run here; None for the others."""
    if part == "llm":
        return TransformersEngine(load_llm(path), precision)
    if not part.startswith("gguf-") or importlib.util.find_spec("llama_cpp") is None:
        return None
    from trainers.serving.llama_cpp_engine import LlamaCpp

    return LlamaCpp(path, precision, threads=torch.get_num_threads())


@dataclass
class _Parts:
    """The parts of an export as they are written into `folder`, each checked against the torch model."""

    model: SlamAsrForConditionalGeneration
    processor: SlamAsrProcessor
    folder: Path
    wanted: Wanted
    say: Callable[[str], None]
    found: dict[str, manifest.Part] = field(default_factory=dict)

    def add(
        self, part: str, what: str, path: str, precision: str, figures: dict[str, float], bounds: dict[str, float]
    ) -> None:
        """A part whose `figures` are within their `bounds`; else a UserError."""
        check(what, figures, bounds)
        shown = ", ".join(f"{name} {value:.3g}" for name, value in figures.items())
        self.say(f"{what} agrees with torch: {shown}")
        self.found[part] = {"path": path, "precision": precision, "check": figures, "bounds": dict(bounds)}

    def export_audio(self, features: Any, embeddings: Any) -> None:
        from trainers.serving.onnx_export import audio_figures, export_onnx, quantise_onnx

        self.say("writing encoder and projector as ONNX (minutes for a large encoder)")
        (self.folder / AUDIO_FILE).parent.mkdir()
        extractor = self.processor.feature_extractor
        filters = np.asarray(extractor.mel_filters, dtype=np.float32)  # (n_fft / 2 + 1, mel_bins)
        np.save(self.folder / MEL_FILE, filters, allow_pickle=False)
        export_onnx(self.model, self.processor, self.folder / AUDIO_FILE)
        files = [("onnx", AUDIO_FILE, "float32")]
        if self.wanted.int8:
            self.say("quantising it to int8")
            quantise_onnx(self.folder / AUDIO_FILE, self.folder / INT8_FILE)
            files.append(("onnx-int8", INT8_FILE, "int8"))
        for part, path, precision in files:
            figures = audio_figures(self.folder / path, features, embeddings)
            bounds = dict(AUDIO_BOUNDS[precision])
            if not self.model.config.projector_ctc:
                bounds.pop("ctc_kl", None)
            self.add(part, f"The {precision} ONNX file", path, precision, figures, bounds)

    def export_llm(self, dtype: torch.dtype, probe: Probe, expected: torch.Tensor) -> None:
        self.say("writing the LLM as a Hugging Face folder")
        write_llm(self.model, self.folder / LLM_FOLDER, dtype)
        write_tokenizer(self.processor, self.folder / LLM_FOLDER)
        self.model.language_model.to("meta")  # room for what is read back
        llm = load_llm(self.folder / LLM_FOLDER)
        precision = str(dtype).removeprefix("torch.")
        figures = llm_agreement(expected, probe.log_probs(llm))
        self.add("llm", "The LLM's folder", LLM_FOLDER, precision, figures, LLM_BOUNDS[precision])
        if not self.wanted.llm_weights:
            del self.found["llm"]
            for file in (self.folder / LLM_FOLDER).glob("model*.safetensors*"):
                file.unlink()
        for kind in self.wanted.gguf:
            self.say(f"writing the LLM as GGUF, {kind}")
            gguf_file.write_gguf(llm, self.folder / f"llm.{kind}.gguf", kind)
        for kind in self.wanted.gguf:
            path = self.folder / f"llm.{kind}.gguf"
            tensors = gguf_file.read_tensors(path, llm.config)
            if llm.config.tie_word_embeddings:
                tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]
            llm.load_state_dict(tensors)
            figures = llm_agreement(expected, probe.log_probs(llm))
            if importlib.util.find_spec("llama_cpp") is not None:
                run = _by_llama_cpp(path, kind, probe, expected)
                bounds = {**LLM_BOUNDS[kind], "top1": GGUF_PRECISIONS[kind].llama_cpp_top1}
                check(f"The {kind} GGUF file, run by llama.cpp,", run, bounds)
                figures |= {f"llama_cpp_{name}": value for name, value in run.items()}
            self.add(f"gguf-{kind}", f"The {kind} GGUF file", path.name, kind, figures, LLM_BOUNDS[kind])


def _by_llama_cpp(path: Path, kind: str, probe: Probe, expected: torch.Tensor) -> dict[str, float]:
    """How near llama.cpp itself is to the torch model, on the probe's transcript."""
    from trainers.serving.exported import Request
    from trainers.serving.llama_cpp_engine import LlamaCpp

    before, after, transcript = probe.scored()
    llm = LlamaCpp(path, kind, threads=torch.get_num_threads())
    found = llm.score(Request(before, probe.audio.numpy(), after, 1), transcript)
    return llm_agreement(expected[-len(found) :], torch.from_numpy(found))


# ---------------------------------------------------------------------- settings


def _settings_of(model: SlamAsrForConditionalGeneration, processor: SlamAsrProcessor) -> manifest.ModelSettings:
    """The manifest's `audio`, `parameters`, `prompt` and `generation`."""
    report = model.parameter_report()
    return {
        "audio": _audio_settings(model, processor),
        "parameters": {"total": report["total"], "encoder": report["encoder"], "trainable": report["trainable"]},
        "prompt": _prompt_settings(processor),
        "generation": _generation_settings(model, processor),
    }


def _audio_settings(model: SlamAsrForConditionalGeneration, processor: SlamAsrProcessor) -> manifest.AudioSettings:
    config, extractor, geometry = model.config, processor.feature_extractor, model.config.audio_geometry
    return {
        "sampling_rate": extractor.sampling_rate,
        "n_fft": extractor.n_fft,
        "hop_length": extractor.hop_length,
        "mel_bins": extractor.feature_size,
        "longest": extractor.n_samples,
        "unit": 2 * extractor.hop_length * geometry.frames_per_token,
        "pad_to_longest": processor.pad_to_30s,
        "embedding_size": config.text_config.get_text_config().hidden_size,
        "seconds_per_embedding": geometry.seconds_per_token() if geometry.in_time_order else None,
        "ctc_tokens": list(config.projector_ctc_tokens) if config.projector_ctc_tokens is not None else None,
        "ctc_whole_vocabulary": config.projector_ctc and config.projector_ctc_tokens is None,
        "compress": config.projector_compress,
        "compress_keep": config.projector_compress_keep,
        "encoder_size": config.audio_config.d_model,
    }


def _prompt_settings(processor: SlamAsrProcessor) -> manifest.PromptSettings:
    before, after = processor.around_audio()
    languages = {}
    if processor.language_prompt is not None:
        for code in LANGUAGE_NAMES:
            first, last = processor.around_audio(language=code)
            languages[code] = {"before": first, "after": last}
    return {
        "before": before,
        "after": after,
        "languages": languages,
        "text": processor.prompt,
        "language_prompt": processor.language_prompt,
        "context_prompt": processor.context_prompt,
        "use_chat_template": processor.use_chat_template,
    }


def _generation_settings(
    model: SlamAsrForConditionalGeneration, processor: SlamAsrProcessor
) -> manifest.GenerationSettings:
    generation = model.generation_config
    ends = generation.eos_token_id
    window, uncut = default_window(model.config, processor.max_seconds)
    return {
        "eos_token_ids": list(ends) if isinstance(ends, list | tuple) else [] if ends is None else [ends],
        "pad_token_id": generation.pad_token_id,
        "settings": json.loads(generation.to_json_string()),
        "tokens_per_second": model.config.max_tokens_per_second,
        "spare_tokens": SPARE_TOKENS,
        "window_seconds": window,
        "uncut_seconds": uncut,
        "overlap_seconds": window_sizes(window, None, processor.max_seconds)[1],
    }


# ---------------------------------------------------------------------- the folder


@contextmanager
def _whole(folder: Path) -> Iterator[Path]:
    """A folder beside `folder` to build in, which takes its name at the end; after an error nothing is left."""
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise UserError(f"{folder} exists already. Name a new folder: an export is written whole or not at all.")
    folder = folder.absolute()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with scratch_folder("export", folder.parent) as building:
        yield building
        if folder.is_dir():
            folder.rmdir()
        os.rename(building, folder)
