"""
The pipeline of an exported model: its audio part by onnxruntime, its LLM by an engine that is given embeddings. Needs no torch.

Windows, gates, merged overlaps, timestamps and marks are those of the model package; here are greedy decoding's settings, and what is
refused because an engine does not have it.
"""

import inspect
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import GeneratorType
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from trainers.engines import ModelSource
from trainers.errors import UserError
from trainers.provenance import EXPORT_MANIFEST
from trainers.serving.joint_decoding import JointScores
from trainers.serving.manifest import Manifest, Part, read_manifest
from trainers.serving.onnx_audio import Heard, OnnxAudio
from trainers.serving.without_torch import model_file

if TYPE_CHECKING:
    from modeling_slam_asr import recordings_slam_asr as recordings
    from modeling_slam_asr import transcripts_slam_asr as transcripts
else:
    recordings, transcripts = model_file("recordings_slam_asr"), model_file("transcripts_slam_asr")

_AUDIO = -1  # stands in a row of token ids for all of the audio's embeddings
# Settings of a generation configuration that greedy decoding obeys, or that say nothing without sampling and beams.
_OBEYED = {"max_new_tokens", "max_length", "ctc_weight"}
_SILENT = {"bos_token_id", "eos_token_id", "pad_token_id", "transformers_version", "_from_model_config", "use_cache"}
_SILENT |= {"temperature", "top_k", "top_p", "min_p", "length_penalty", "early_stopping", "cache_implementation"}
_SILENT |= {"ctc_draft", "prompt_columns"}  # a draft changes the speed, and columns are cut off again
_NEUTRAL = {"num_beams": 1, "do_sample": False, "num_return_sequences": 1, "repetition_penalty": 1.0}
_NEUTRAL |= {"ctc_only": False}
_NEUTRAL |= {"no_repeat_ngram_size": 0, "output_scores": False, "return_dict_in_generate": False}
_NEUTRAL |= {"output_attentions": False, "output_hidden_states": False, "output_logits": False}


@dataclass(frozen=True)
class Request:
    """
    What an LLM is asked.

    before, after: token ids around the audio; audio: embeddings `(audio_tokens, hidden)`; limit: most new tokens.
    joint: what the CTC head has to say in each of them, if anything; good for one transcript.
    """

    before: list[int]
    audio: NDArray[np.float32]
    after: list[int]
    limit: int
    joint: JointScores | None = None

    def next_token(self, scores: NDArray[np.floating[Any]]) -> int:
        """The best token by the LLM's `scores` `(vocab,)`, or by them and the CTC head together."""
        if self.joint is None:
            return int(scores.argmax())
        token = int(self.joint(scores).argmax())
        self.joint.take(token)
        return token


class Generated(NamedTuple):
    """New tokens, the end token too where the LLM wrote one, and the natural logarithm of each one's probability."""

    tokens: list[int]
    log_probs: list[float]


class LanguageEngine(Protocol):
    """
    Greedy decoding by an LLM.

    name: as of `--engine`; precision: of its weights; joins: whether it asks [`Request.next_token`], and so decodes jointly.
    """

    name: str
    precision: str
    joins: bool

    def __call__(self, requests: Sequence[Request], ends: Collection[int], log_probs: bool) -> list[Generated]:
        """Of each request what the LLM writes, until an end token, its limit or a loop; log-probabilities where they are wanted."""


def is_done(tokens: Sequence[int], limit: int, ends: Collection[int]) -> bool:
    """Whether a transcript of so many tokens, of which the last is new, goes no further."""
    if len(tokens) >= limit or tokens[-1] in ends:
        return True
    return len(tokens) % transcripts.CHECK_EVERY == 0 and transcripts.loop_period(tokens) is not None


def cut_loop(tokens: Sequence[int]) -> int:
    """How many of an engine's tokens that cannot stop at a loop are those of one that can."""
    step = transcripts.CHECK_EVERY
    checks = range(step, len(tokens) + 1, step)
    return next((count for count in checks if transcripts.loop_period(tokens[:count]) is not None), len(tokens))


def open_export(folder: Path, engine: str, options: str) -> dict[str, Part]:
    """
    The parts of an export, of which the ONNX part's files are checked.

    Args:
        engine, options: what asks, and the options of `slam-asr export` that it needs.
    Raises:
        UserError: when there is no export, or it has no ONNX part.
    """
    if not (folder / EXPORT_MANIFEST).is_file():
        raise UserError(
            f"The engine {engine} reads an export, and {folder} is none. Make one: `slam-asr export {folder} exported {options}`."
        )
    return read_manifest(folder, "onnx")["parts"]


@dataclass(frozen=True)
class _Geometry:
    """As `AudioGeometry` of the model package: an exported projector's embeddings are in order of time."""

    seconds: float
    in_time_order: bool = True

    def seconds_per_token(self) -> float:
        return self.seconds


@dataclass(frozen=True)
class _EncoderConfig:
    d_model: int | None


@dataclass(frozen=True)
class ExportedConfig:
    """What the pipeline and its users ask of a model's configuration."""

    window_seconds: float
    projector_ctc: bool
    projector_compress: str | None
    audio_geometry: _Geometry
    audio_config: _EncoderConfig


class _Settings(dict[str, Any]):
    """A generation configuration as far as anybody here asks for one."""

    def to_diff_dict(self) -> dict[str, Any]:
        return dict(self)


class ExportedModel:
    """The model in `ExportedPipeline.model`: what a manifest says of it."""

    def __init__(self, manifest: Manifest, precision: str) -> None:
        audio, generation = manifest["audio"], manifest["generation"]
        self.config = ExportedConfig(
            window_seconds=generation["window_seconds"],
            projector_ctc=audio["ctc_tokens"] is not None or audio["ctc_whole_vocabulary"],
            projector_compress=audio["compress"],
            audio_geometry=_Geometry(audio["seconds_per_embedding"] or 0.0),
            audio_config=_EncoderConfig(audio.get("encoder_size")),
        )
        self.generation_config = _Settings(generation["settings"])
        self.dtype = precision


class ExportedProcessor(transcripts.PromptMixin):
    """
    As `SlamAsrProcessor`, from an export.

    Raises:
        UserError: when its tokenizer does not give the prompt that the manifest lists.
    """

    chat_template = None  # the tokenizer has it

    def __init__(self, manifest: Manifest, folder: Path, audio: OnnxAudio) -> None:
        from transformers import PreTrainedTokenizerFast

        self.tokenizer: Any = PreTrainedTokenizerFast.from_pretrained(folder)
        self.audio, settings = audio, manifest["prompt"]
        self.prompt, self.language_prompt = settings["text"], settings["language_prompt"]
        self.context_prompt, self.use_chat_template = settings["context_prompt"], settings["use_chat_template"]
        self.sampling_rate, self.n_samples = audio.settings["sampling_rate"], audio.settings["longest"]
        self.max_seconds = self.n_samples / self.sampling_rate
        if self.around_audio() != (settings["before"], settings["after"]):
            raise UserError(
                f"The tokenizer in {folder} does not give the prompt that the manifest lists. Export the model again, with the "
                "versions of transformers and tokenizers that are installed here."
            )

    def extract_features(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """The log-mel spectrogram `(mel_bins, mel_frames)` of one window."""
        return self.audio.features(samples)

    def prompt_ids(
        self, mel_frames: int, prompt: str | None = None, language: str | None = None, context: str | None = None
    ) -> list[int]:
        """Token ids up to where the transcript begins, with one place for all of the audio."""
        before, after = self.around_audio(prompt, language, context)
        return [*before, _AUDIO, *after]

    def decode(self, tokens: Sequence[int], skip_special_tokens: bool = False) -> str:
        """Text of one row of generated token ids."""
        return str(self.tokenizer.decode(list(tokens), skip_special_tokens=skip_special_tokens)).strip()


class ExportedPipeline(recordings.RecordingsMixin):
    """
    As `SlamAsrPipeline`, with its arguments, for a folder made by `slam-asr export`.

    Args:
        folder: with a manifest, whose `llm/` has the tokenizer.
        audio: its audio part.
        llm: its LLM.
    """

    shows_attention = False
    _forward_options = frozenset(inspect.signature(recordings.RecordingsMixin._forward).parameters)

    def __init__(self, folder: str | os.PathLike[str], audio: OnnxAudio, llm: LanguageEngine) -> None:
        self.audio, self.llm, self.device = audio, llm, "cpu"
        unknown: dict[str, int | None] = {"total": None, "encoder": None, "trainable": None}  # of older exports
        self.source = ModelSource(os.fspath(folder), parameters={**unknown, **audio.manifest.get("parameters", {})})
        self.generation = audio.manifest["generation"]
        self.model = ExportedModel(audio.manifest, llm.precision)
        self.processor = self.feature_extractor = ExportedProcessor(audio.manifest, Path(folder) / "llm", audio)
        self.tokenizer = self.processor.tokenizer
        self.forward = self._forward
        self._detectors = {}

    def __call__(self, inputs: Any, *, batch_size: int = 1, num_workers: int = 0, **kwargs: Any) -> Any:
        """Transcribe one recording (a dict), a list of them (a list), or a generator of them (an iterable)."""
        parameters = self._sanitize_parameters(**kwargs)
        inputs = self._recordings(inputs)
        several = isinstance(inputs, list | GeneratorType)
        answers = self.get_iterator(inputs if several else [inputs], num_workers, batch_size, *parameters)
        if isinstance(inputs, list):
            return list(answers)
        return answers if several else next(iter(answers))

    def _sanitize_parameters(  # type: ignore[override]  # they are named there
        self, **kwargs: Any
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        first, forward, last = super()._sanitize_parameters(**kwargs)
        self._greedy_settings({key: value for key, value in forward.items() if key not in self._forward_options})
        if forward.get("return_timestamps") == "word" and not self.model.config.projector_ctc:
            raise UserError(
                f"return_timestamps='word' needs the LLM's attention, which the engine {self.llm.name} does not give, and this model "
                "has no CTC head. Use 'estimate', or the engine torch with the model itself."
            )
        return first, forward, last

    def check_decoding(self, options: Mapping[str, Any]) -> None:
        """Told before any work.

        Raises:
            UserError: `options`, or settings of the model's own that they leave as they are, ask for more than the engine can.
        """
        self._greedy_settings(options)

    def _greedy_settings(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """What greedy decoding is to obey of the model's settings and a call's `options`: limits, and the CTC head's weight."""
        settings = {**self.generation["settings"], **options}
        weight = settings.get("ctc_weight") or 0.0
        if not 0 <= weight < 1 or (weight and not self.model.config.projector_ctc):
            raise UserError(
                f"ctc_weight={weight!r} must be from 0 to below 1, and above 0 only for a model with a CTC head."
            )
        if weight and not self.llm.joins:
            raise UserError(
                f"ctc_weight={weight!r}: the engine {self.llm.name} decodes by the LLM alone. Give ctc_weight=0.0, or use another engine."
            )
        for name, value in settings.items():
            if name in _OBEYED or value is None or (name in _NEUTRAL and value == _NEUTRAL[name]):
                continue
            if name in _SILENT and (name not in options or not name.endswith("_token_id")):
                continue
            where = "" if name in options else " of the model's own generation settings"
            remedy = f"Give {name}={_NEUTRAL[name]}" if name in _NEUTRAL else "Leave it out"
            raise UserError(
                f"{name}={value!r}{where} is not possible: the engine {self.llm.name} decodes greedily. {remedy}, or use the engine "
                "torch with the model itself."
            )
        if options.get("max_length") is not None and options.get("max_new_tokens") is None:
            settings["max_new_tokens"] = None  # as in `generate`: the model's own is not what is asked for
        return {name: settings[name] for name in _OBEYED if settings.get(name) is not None}

    def _transcribe(
        self, windows: list[recordings.WindowItem], look: bool, words: bool, trim_loops: bool, options: dict[str, Any]
    ) -> list[recordings.WindowTranscript]:
        obeyed = self._greedy_settings(options)
        heard = self.audio.hear([window["features"] for window in windows])
        ends = self.generation["eos_token_ids"]
        requests = [self._request(window["ids"], one, obeyed, ends) for window, one in zip(windows, heard, strict=True)]
        # Where a compressing model leaves no audio, nothing is invented.
        asked = [request for request in requests if len(request.audio)]
        written = iter(self.llm(asked, ends, look) if asked else [])
        silence = Generated(list(ends[:1]), [0.0] * len(ends[:1]))
        answers = []
        for request, one in zip(requests, heard, strict=True):
            generated = next(written) if len(request.audio) else silence
            transcript = transcripts.read_transcript(generated.tokens, ends, None, request.limit, trim_loops)
            count = len(transcript.tokens) + (transcript.end is not None)
            answers.append(
                recordings.WindowTranscript(
                    transcript,
                    log_probs=generated.log_probs[:count] if look else None,
                    aligned=self._aligned(one, transcript.tokens) if words else None,
                    joint=bool(obeyed.get("ctc_weight")),
                )
            )
        return answers

    def _request(self, row: list[int], heard: Heard, obeyed: Mapping[str, Any], ends: Collection[int]) -> Request:
        place = row.index(_AUDIO)
        limit = obeyed.get("max_new_tokens")
        if limit is None:
            seconds = heard.placeholders * self.model.config.audio_geometry.seconds_per_token()
            limit = transcripts.token_limit(seconds, self.generation["tokens_per_second"])
            limit = min(limit, obeyed.get("max_length", limit))
        joint, scores = None, heard.ctc_log_probs
        if obeyed.get("ctc_weight") and scores is not None:
            joint = JointScores(scores, self._class_tokens(scores), ends, obeyed["ctc_weight"])
        return Request(row[:place], heard.embeddings, row[place + 1 :], limit, joint)

    def _class_tokens(self, scores: NDArray[np.float32]) -> Sequence[int]:
        """The token ids of the classes behind the blank, for the CTC head's `scores` `(frames, 1 + classes)`."""
        known = self.audio.settings["ctc_tokens"]
        return known if known is not None else range(scores.shape[1] - 1)

    def _aligned(self, heard: Heard, tokens: Sequence[int]) -> NDArray[Any] | None:
        scores = heard.ctc_log_probs
        if scores is None:
            return None
        classes = {token: index for index, token in enumerate(self._class_tokens(scores), start=1)}
        return align_known(scores, [classes.get(token) for token in tokens])


def align_known(scores: NDArray[np.float32], targets: Sequence[int | None]) -> NDArray[Any] | None:
    """
    As `align_tokens` of the model package, for transcripts with tokens that the CTC head has no class for.

    Those share what lies between their neighbours in equal parts, with the log-probability NaN.

    Args:
        scores: `(frames, 1 + classes)`, blank first.
        targets: the class of each token, None where it has none.
    Returns:
        `(targets, 3)`; None where no token has a class, or there are more of them than frames.
    """
    known = [index for index, target in enumerate(targets) if target is not None]
    if targets and not known:
        return None
    try:
        places = transcripts.align_tokens(scores, [target for target in targets if target is not None])
    except ValueError:
        return None
    found = np.full((len(targets), 3), np.nan)
    found[known] = places
    bounds = [-1, *known, len(targets)]
    for left, right in pairwise(bounds):
        first = 0.0 if left < 0 else found[left, 1]
        last = float(len(scores)) if right == len(targets) else found[right, 0]
        edges = np.linspace(first, last, right - left)
        found[left + 1 : right, 0], found[left + 1 : right, 1] = edges[:-1], edges[1:]
    return found
