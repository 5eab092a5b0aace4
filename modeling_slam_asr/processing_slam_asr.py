"""From recordings (and transcripts) to a model's inputs, and from its tokens to text."""

import json
import os
from collections.abc import Sequence, Sized
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import torch
from transformers import AutoTokenizer, BatchFeature, ProcessorMixin, WhisperFeatureExtractor
from transformers.processing_utils import ProcessingKwargs

from .audio_slam_asr import load_audio, rate_pair
from .checkpoint_slam_asr import hub_arguments, repository_file
from .configuration_slam_asr import AUDIO_TOKEN_ID, AUTO_MAP, DEFAULT_PROMPT, SlamAsrConfig
from .projector_slam_asr import AudioGeometry, audio_geometry
from .transcripts_slam_asr import AUDIO_MARK, CONTEXT_PROMPT, PromptMixin

__all__ = ["SlamAsrProcessor", "pad_features", "pad_rows"]


class SlamAsrProcessorKwargs(ProcessingKwargs, total=False):
    """
    The library's settings of a call, by themselves or in `text_kwargs`, `audio_kwargs` and `common_kwargs`.

    sampling_rate: rate in Hz of recordings given as bare arrays; the model's own when None.
    padding_side: where shorter rows of `input_ids` are padded; "left" when not given. The results do not depend on it.
    padding, return_tensors: `True` or "longest", and "pt": there is no other way here.
    """

    sampling_rate: int | None
    padding_side: str
    padding: bool | str
    return_tensors: str


class SlamAsrProcessor(PromptMixin, ProcessorMixin):
    r"""
    A Whisper feature extractor and the LLM's tokenizer.

    A row of `input_ids` is: the beginning token if the tokenizer itself writes one, one placeholder for each audio
    embedding, the prompt and, in training, the transcript and the end token. Each recording is padded with *silence* to a
    whole number of audio tokens before its spectrogram is taken, so its features do not depend on its batch.

    Args:
        feature_extractor: `WhisperFeatureExtractor` of the base encoder.
        tokenizer: the LLM's tokenizer.
        chat_template: the template, when it is not the tokenizer's own.
        prompt: the text after the audio.
        language_prompt: the text after the audio when a language is asked for; `{language}` stands for its English name.
            None: a language does not change the prompt (the paper's way).
        context_prompt: text put before the prompt when context or hotwords are given; `{context}` stands for them.
        use_chat_template, projector_type, projector_downsample_rate, projector_num_queries, pad_to_30s, audio_token_id: as
            in [`SlamAsrConfig`]; they must be the model's.
    """

    valid_processor_kwargs = SlamAsrProcessorKwargs

    def __init__(
        self,
        feature_extractor: WhisperFeatureExtractor,
        tokenizer: Any,
        chat_template: str | None = None,
        prompt: str = DEFAULT_PROMPT,
        language_prompt: str | None = None,
        context_prompt: str = CONTEXT_PROMPT,
        use_chat_template: bool = False,
        projector_type: str = "concat_linear",
        projector_downsample_rate: int = 5,
        projector_num_queries: int = 64,
        pad_to_30s: bool = False,
        audio_token_id: int = AUDIO_TOKEN_ID,
    ) -> None:
        self.prompt = prompt
        self.language_prompt = language_prompt
        self.context_prompt = context_prompt
        self.use_chat_template = use_chat_template
        self.projector_type = projector_type
        self.projector_downsample_rate = projector_downsample_rate
        self.projector_num_queries = projector_num_queries
        self.pad_to_30s = pad_to_30s
        self.audio_token_id = audio_token_id
        super().__init__(feature_extractor, tokenizer, chat_template=chat_template)
        if tokenizer.eos_token_id is None:
            raise ValueError(
                "The tokenizer has no end token. Set one (`tokenizer.eos_token = ...`): transcripts end with it."
            )

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """As of `ProcessorMixin`. A ValueError where the stored settings of the spectrogram are none of a Whisper model."""
        check_feature_settings(pretrained_model_name_or_path, hub_arguments(kwargs))
        return super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)

    @classmethod
    def from_base_models(
        cls,
        audio_model: str,
        text_model: str,
        *,
        audio_revision: str | None = None,
        text_revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | None = None,
        local_files_only: bool = False,
        **settings: Any,
    ) -> "SlamAsrProcessor":
        """
        The processor of a model made by `SlamAsrForConditionalGeneration.from_base_models` with the same names.

        Args:
            settings: this class's own keyword arguments, for instance `prompt` or `pad_to_30s`.
        """
        hub: dict[str, Any] = {"token": token, "cache_dir": cache_dir, "local_files_only": local_files_only}
        check_feature_settings(audio_model, {**hub, "revision": audio_revision or "main"})
        feature_extractor = WhisperFeatureExtractor.from_pretrained(
            audio_model, revision=audio_revision or "main", **hub
        )
        tokenizer = AutoTokenizer.from_pretrained(
            text_model, revision=text_revision or "main", trust_remote_code=False, **hub
        )
        for kept in (vars(feature_extractor), tokenizer.init_kwargs):
            kept.pop("auto_map", None)  # code of theirs, which would be saved with this one
        return cls(feature_extractor, tokenizer, **settings)

    @classmethod
    def from_config(
        cls, config: SlamAsrConfig, feature_extractor: WhisperFeatureExtractor, tokenizer: Any
    ) -> "SlamAsrProcessor":
        """The processor that a model of this configuration was made for, from its two parts."""
        names = ("prompt", "use_chat_template", "projector_type", "projector_downsample_rate", "projector_num_queries",
                 "pad_to_30s", "audio_token_id")  # fmt: skip
        return cls(feature_extractor, tokenizer, **{name: getattr(config, name) for name in names})

    @property
    def sampling_rate(self) -> int:
        """Samples a second that the model reads, in Hz."""
        return self.feature_extractor.sampling_rate

    @property
    def audio_geometry(self) -> AudioGeometry:
        """As of [`SlamAsrConfig`]."""
        return audio_geometry(self)

    @property
    def max_seconds(self) -> float:
        """The longest recording that one call can take."""
        return self.feature_extractor.n_samples / self.sampling_rate

    @property
    def pad_token_id(self) -> int:
        """What shorter rows of tokens are filled up with; `Seq2SeqTrainer` asks for it by this name."""
        pad = self.tokenizer.pad_token_id
        return pad if pad is not None else self.tokenizer.eos_token_id

    @property
    def model_input_names(self) -> list[str]:
        return ["input_features", "input_features_mask", "input_ids", "attention_mask"]

    def apply_transcription_request(
        self,
        audio: Any,
        language: str | Sequence[str | None] | None = None,
        prompt: str | Sequence[str | None] | None = None,
        *,
        text: str | Sequence[str] | None = None,
        context: str | Sequence[str | None] | None = None,
        keywords: Sequence[str] | Sequence[Sequence[str] | None] | None = None,
        output_labels: bool | None = None,
        tokenize: bool = True,
        **kwargs: Unpack[SlamAsrProcessorKwargs],
    ) -> Any:
        """
        The inputs of `generate`, or with `text` those of `forward`.

        Args:
            audio: a recording or a list of them, each as `load_audio` takes it, at most 30 s long.
            language: ISO 639-1 code or name, for all or for each; see `language_prompt`.
            prompt: replaces the prompt, for all or for each.
            text: transcripts: they and the end token are appended, and `labels` returned.
            context: text put before the prompt, for all or for each; see `context_prompt`.
            keywords: hotwords, put there too: a list for all, or one for each recording.
            output_labels: whether `labels` are returned; None: where there is a `text`.
            tokenize: False gives the requests as texts, a list, with `<|slam_asr_audio|>` where the audio goes.
            kwargs: `sampling_rate` and `padding_side`; see [`SlamAsrProcessorKwargs`].
        Returns:
            `input_features` `(batch, mel_bins, mel_frames)`, `input_features_mask` `(batch, mel_frames)`, `input_ids` and
            `attention_mask` `(batch, length)` and, with `text`, `labels` `(batch, length)`, -100 where there is no loss.
        Raises:
            ValueError: for a recording that cannot be read or is too long, or lists of different lengths.
        """
        sampling_rate, padding_side = self._settings(kwargs)
        recordings = list(audio) if _is_batch(audio) else [audio]
        if not recordings:
            raise ValueError("There is no recording to transcribe: `audio` is an empty list.")
        size = len(recordings)
        transcripts = None if text is None else _spread("text", text, size)
        contexts = _with_keywords(_spread("context", context, size), keywords)
        asked = list(zip(_spread("prompt", prompt, size), _spread("language", language, size), contexts, strict=True))
        if output_labels and transcripts is None:
            raise ValueError("output_labels=True needs the transcripts: pass `text` too.")
        if not tokenize:
            return [AUDIO_MARK.join(self._around_audio(self.prompt_text(*one))) for one in asked]
        features = [self.extract_features(item, sampling_rate) for item in recordings]
        rows, labels = [], []
        for index, own in enumerate(asked):
            row = self.prompt_ids(features[index].shape[-1], *own)
            target = [] if transcripts is None else self.transcript_ids(transcripts[index])
            rows.append(row + target)
            labels.append([-100] * len(row) + target)
        input_features, input_features_mask = pad_features(features)
        data = {
            "input_features": input_features,
            "input_features_mask": input_features_mask,
            "input_ids": pad_rows(rows, self.pad_token_id, padding_side),
            "attention_mask": pad_rows([[1] * len(row) for row in rows], 0, padding_side),
        }
        if transcripts is not None and output_labels is not False:
            data["labels"] = pad_rows(labels, -100, padding_side)
        return BatchFeature(data)

    def __call__(self, audio: Any, text: Any = None, **kwargs: Any) -> BatchFeature:
        """[`apply_transcription_request`] with the transcripts as second argument."""
        return self.apply_transcription_request(audio, text=text, **kwargs)

    def apply_chat_template(  # type: ignore[override]  # one turn of one kind, and the model's own template
        self,
        conversation: Sequence[Any],
        chat_template: str | None = None,
        *,
        tokenize: bool = False,
        return_dict: bool = True,
        add_generation_prompt: bool = True,
        **kwargs: Unpack[SlamAsrProcessorKwargs],
    ) -> Any:
        """
        [`apply_transcription_request`] in the form of other audio LLMs' requests.

        Args:
            conversation: one or a list of them, each a user's turn with a recording (`{"type": "audio", "audio": ...}`, or `path` or
                `url`) and, in place of the model's prompt, a text; to train on, an assistant's turn with the transcript behind it.
            tokenize: False gives the requests as texts; True all inputs, by name.
        Raises:
            ValueError: for other turns or parts, and for a template of the caller's.
        """
        if chat_template is not None or not return_dict:
            raise ValueError(
                "The model has its own template, and its inputs have names: leave chat_template and return_dict out."
            )
        many = bool(conversation) and isinstance(conversation[0], list | tuple)
        asked = [_read_turns(one) for one in (conversation if many else [conversation])]
        told = [transcript for *_, transcript in asked if transcript is not None]
        made = self.apply_transcription_request(
            [audio for audio, *_ in asked],
            prompt=[prompt for _, prompt, _ in asked],
            text=told or None,  # a list that is too short is refused there
            tokenize=tokenize,
            **kwargs,
        )
        return made if tokenize or many else made[0]

    @staticmethod
    def _settings(kwargs: SlamAsrProcessorKwargs) -> tuple[int | None, str]:
        """The rate of the recordings and the side of the padding, wherever they were given; there is nothing else to set."""
        given: dict[str, Any] = {"sampling_rate": None, "padding_side": "left", "padding": True, "return_tensors": "pt"}
        settings: dict[str, Any] = dict(kwargs)
        for group in ("common_kwargs", "text_kwargs", "audio_kwargs"):
            settings = settings.pop(group, {}) | settings
        if unknown := settings.keys() - given.keys():
            raise TypeError(f"SlamAsrProcessor cannot set {sorted(unknown)}. What can be set: {sorted(given)}.")
        given |= settings
        if given["return_tensors"] != "pt":
            raise ValueError(
                f"return_tensors={given['return_tensors']!r} is not possible: this processor makes torch tensors ('pt')."
            )
        if given["padding"] not in (True, "longest"):
            raise ValueError(
                f"padding={given['padding']!r} is not possible: a batch is padded to its longest row ('longest')."
            )
        if given["padding_side"] not in ("left", "right"):
            raise ValueError(f"padding_side must be 'left' or 'right', got {given['padding_side']!r}.")
        return given["sampling_rate"], given["padding_side"]

    def extract_features(self, audio: Any, sampling_rate: int | None = None) -> np.ndarray:
        """The log-mel spectrogram `(mel_bins, mel_frames)` of one recording, float32, with an even number of frames."""
        samples = load_audio(audio, self.sampling_rate, sampling_rate)
        if len(samples) > self.feature_extractor.n_samples:
            raise ValueError(
                f"The recording lasts {len(samples) / self.sampling_rate:.1f} s; one call takes at most {self.max_seconds:.0f} s. "
                "Use the pipeline or `slam-asr transcribe`: they cut long audio at pauses."
            )
        unit = 2 * self.feature_extractor.hop_length * self.audio_geometry.frames_per_token
        length = self.feature_extractor.n_samples if self.pad_to_30s else -(-max(len(samples), 1) // unit) * unit
        samples = np.pad(samples, (0, min(length, self.feature_extractor.n_samples) - len(samples)))
        output = self.feature_extractor(
            samples, sampling_rate=self.sampling_rate, padding="longest", truncation=False, return_tensors="np"
        )
        return output["input_features"][0]

    def prompt_ids(
        self, mel_frames: int, prompt: str | None = None, language: str | None = None, context: str | None = None
    ) -> list[int]:
        """Token ids up to where the transcript begins: placeholders for `mel_frames` frames of audio, then the prompt."""
        before, after = self.around_audio(prompt, language, context)
        return before + [self.audio_token_id] * self.audio_geometry.token_count(mel_frames) + after

    def transcript_ids(self, text: str) -> list[int]:
        """Token ids of a transcript and the end token."""
        return [*self._encode(text), self.tokenizer.eos_token_id]

    def batch_decode(self, sequences: Any, *args: Any, **kwargs: Any) -> list[str]:
        """Texts of generated token ids `(batch, tokens)`, without audio placeholders and white space at the ends."""
        texts = self.tokenizer.batch_decode(self._without_audio(sequences), *args, **kwargs)
        return [text.strip() for text in texts]

    def decode(self, token_ids: Any, *args: Any, **kwargs: Any) -> str | list[str]:
        """Text of one row of generated token ids; of a batch, a list as [`batch_decode`] gives it."""
        text = self.tokenizer.decode(self._without_audio(token_ids), *args, **kwargs)
        return text.strip() if isinstance(text, str) else [row.strip() for row in text]

    def to_dict(self) -> dict[str, Any]:
        return {**super().to_dict(), "auto_map": {"AutoProcessor": AUTO_MAP["AutoProcessor"]}}

    def _without_audio(self, tokens: Any) -> Any:
        if isinstance(tokens, torch.Tensor | np.ndarray):
            tokens = tokens.tolist()
        if not isinstance(tokens, list | tuple):
            return tokens
        return [
            self._without_audio(token) for token in tokens if isinstance(token, Sized) or token != self.audio_token_id
        ]


# What a spectrogram's settings may be: those of Whisper, whose filters and windows are computed as they are loaded.
_FEATURE_RANGES = {
    "sampling_rate": (16_000, 16_000), "hop_length": (160, 160), "n_fft": (400, 400), "feature_size": (1, 1024), "chunk_length": (1, 30),
}  # fmt: skip


def check_feature_settings(model: Any, hub: dict[str, Any]) -> None:
    """Raise a ValueError where the stored settings of a model's spectrogram are none of a Whisper model."""
    for name in ("processor_config.json", "preprocessor_config.json"):
        file = repository_file(model, name, **hub)
        try:
            values = {} if file is None else json.loads(Path(file).read_bytes())
            values = values.get("feature_extractor", values)
            found = {key: values[key] for key in _FEATURE_RANGES if values.get(key) is not None}
        except (ValueError, RecursionError, AttributeError):
            continue  # no settings at all: the library says so
        for key, value in found.items():
            low, high = _FEATURE_RANGES[key]
            if not isinstance(value, int) or not low <= value <= high:
                raise ValueError(
                    f"{name} of {os.fspath(model)} has {key}={repr(value)[:80]}; in Whisper models it is "
                    f"{low if low == high else f'{low} to {high}'}. Mend the file, or get it again."
                )


def pad_features(features: Sequence[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
    """Spectrograms `(mel_bins, mel_frames)` of several lengths as one `(batch, mel_bins, mel_frames)` and its mask."""
    longest = max(item.shape[-1] for item in features)
    batch = torch.zeros(len(features), features[0].shape[0], longest)
    mask = torch.zeros(len(features), longest, dtype=torch.long)
    for row, item in enumerate(features):
        batch[row, :, : item.shape[-1]] = torch.from_numpy(item)
        mask[row, : item.shape[-1]] = 1
    return batch, mask


def pad_rows(rows: Sequence[Sequence[int]], value: int, side: str) -> torch.Tensor:
    """Rows of several lengths as one `(batch, length)` tensor of int64, filled with `value` at the given side."""
    longest = max(len(row) for row in rows)
    padded = [
        [value] * (longest - len(row)) + list(row) if side == "left" else list(row) + [value] * (longest - len(row))
        for row in rows
    ]
    return torch.tensor(padded, dtype=torch.long)


def _is_batch(audio: Any) -> bool:
    """True for a list of recordings; a list of numbers is one recording."""
    audio = rate_pair(audio)
    shape = tuple(getattr(audio, "shape", ()))
    if len(shape) == 2 and min(shape) > 2:
        raise ValueError(
            f"An array of shape {shape} could be a batch or one recording of many channels. Give a list of recordings, or the channels' mean."
        )
    return isinstance(audio, list | tuple) and not (audio and isinstance(audio[0], int | float | np.number))


def _read_turns(turns: Sequence[Any]) -> tuple[Any, str | None, str | None]:
    """Of a conversation the recording, the text in place of the prompt, and the transcript."""
    told = [turn["content"] for turn in turns[1:]]
    parts = turns[0]["content"] if turns and turns[0].get("role") == "user" else []
    sounds = [
        next((part[key] for key in ("audio", "path", "url") if key in part), None)
        for part in parts
        if part["type"] == "audio"
    ]
    texts = [part["text"] for part in parts if part["type"] == "text"]
    if (
        [turn.get("role") for turn in turns[1:]] not in ([], ["assistant"])
        or len(sounds) != 1
        or len(texts) > 1
        or len(parts) > 2
    ):
        raise ValueError(
            "A conversation is a user's turn with one recording and at most one text, and to train on an assistant's with the "
            "transcript. `apply_transcription_request` takes recordings, language, prompt and context by name."
        )
    transcript = told[0] if told else None
    if isinstance(transcript, list):
        transcript = "".join(part["text"] for part in transcript)
    return sounds[0], texts[0] if texts else None, transcript


def _with_keywords(contexts: Sequence[str | None], keywords: Any) -> list[str | None]:
    """Each recording's context with its hotwords behind it."""
    if keywords is None:
        return list(contexts)
    if isinstance(keywords, str):
        raise ValueError(
            f"keywords={keywords!r} is one text; give a list of words, or a list of them for each recording."
        )
    same = all(isinstance(word, str) for word in keywords)
    lists = [keywords] * len(contexts) if same else _spread("keywords", keywords, len(contexts))
    joined = [", ".join(words or []) for words in lists]
    return [
        " ".join(part for part in (own, words) if part) or None for own, words in zip(contexts, joined, strict=True)
    ]


def _spread(name: str, value: Any, size: int) -> list[Any]:
    if value is None or isinstance(value, str):
        return [value] * size
    values = list(value)
    if len(values) != size:
        raise ValueError(f"`{name}` has {len(values)} entries for {size} recording(s); give one each, or one for all.")
    return values
