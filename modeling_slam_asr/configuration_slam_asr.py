"""The configuration of a SLAM-ASR model: a Whisper encoder, which of its blocks are kept, a projector and an LLM."""

import difflib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from transformers import AutoConfig, PreTrainedConfig
from transformers.configuration_utils import SubConfigSpec
from transformers.utils import logging

from .projector_slam_asr import ENCODER_SECONDS, PROJECTORS, AudioGeometry, audio_geometry

__all__ = ["AUTO_MAP", "CUSTOM_PIPELINES", "FORMAT_VERSION", "PACKAGE_VERSION", "SlamAsrConfig", "without_foreign_code"]

logger = logging.get_logger(__name__)

# Outside every vocabulary: a placeholder is replaced by an audio embedding and never looked up in the LLM's table.
AUDIO_TOKEN_ID = 2**31 - 1

DEFAULT_PROMPT = "Transcribe speech to text.\n"
PROJECTOR_TYPES = tuple(PROJECTORS)
CHECKPOINT_FORMS = ("standalone", "adapter")
COMPRESSIONS = ("blank", "tokens")

# The package's version, which setup.cfg reads here: this file travels with checkpoints, the package's metadata do not.
PACKAGE_VERSION = "0.1.0"
MOST_TOKENS_PER_SECOND = 1_000
# Of config.json; a file without a number has format 1.
FORMAT_VERSION = 2

AUTO_MAP = {
    "AutoConfig": "configuration_slam_asr.SlamAsrConfig",
    "AutoModel": "modeling_slam_asr.SlamAsrForConditionalGeneration",
    "AutoModelForSpeechSeq2Seq": "modeling_slam_asr.SlamAsrForConditionalGeneration",
    "AutoProcessor": "processing_slam_asr.SlamAsrProcessor",
}
CUSTOM_PIPELINES = {
    "automatic-speech-recognition": {
        "impl": "pipeline_slam_asr.SlamAsrPipeline",
        "pt": ["AutoModelForSpeechSeq2Seq"],
        "tf": [],
        "default": None,
        "type": "multimodal",
    }
}
# Two checkpoints that agree in these share encoder, LLM and processor.
SHARED_FIELDS = (
    "audio_model_id", "audio_model_revision", "text_model_id", "text_model_revision", "kept_encoder_layers",
    "projector_type", "projector_downsample_rate", "projector_num_queries", "projector_ctc", "projector_ctc_tokens",
    "projector_compress", "projector_compress_keep", "pad_to_30s", "prompt", "use_chat_template",
)  # fmt: skip
# Keys that transformers itself keeps in a config.json without declaring them as fields.
_LIBRARY_KEYS = {
    "auto_map", "custom_pipelines", "transformers_version", "torch_dtype", "model_type", "name_or_path",
    "attn_implementation", "experts_implementation", "output_attentions", "num_labels", "quantization_config",
    "per_layer_config", "use_cache", "kept_encoder_layers", "distributed_config", "format_version", "slam_asr_version",
    "bos_token_id", "eos_token_id", "pad_token_id",
}  # fmt: skip
# What a config.json or generation_config.json may ask for before any memory is taken: far above every model there is.
_LARGEST = (
    (re.compile(r"(^|_)layers?$"), 1_000),
    (re.compile(r"^vocab_size$"), 10_000_000),
    (re.compile(r"^num_(beams|beam_groups|return_sequences)$"), 100),
    (re.compile(r"^(max|min)_(length|new_tokens)$"), 1 << 20),
    (re.compile(r"^projector_downsample_rate$"), 1_500),
    (re.compile(r"(size|dim|d_model|n_embd|n_inner|heads|queries|bins|experts|positions|rank|^r)$"), 1 << 20),
    (re.compile(r"embeddings$"), 1 << 25),
)
# Keys with which a file could have code of another repository loaded, where their value names one.
_KERNEL_KEYS = ("attn_implementation", "_attn_implementation", "experts_implementation", "_experts_implementation")
_CODE_KEYS = ("auto_map", "custom_pipelines", "custom_generate")


class SlamAsrConfig(PreTrainedConfig):
    r"""
    Args:
        audio_config: the base Whisper model's configuration; `encoder_layers` counts the blocks before pruning.
        text_config: the LLM's configuration.
        prune_encoder_layers: `0`; `n` for the last `n` encoder blocks; or a list of block indices of the base encoder,
            negative ones counted from the end.
        projector_type: `"concat_linear"`, `"conv1d"` or `"qformer"`.
        projector_layer_norm: end with a LayerNorm (arXiv 2603.27981); False gives SLAM-LLM's projectors. The Q-Former has one.
        projector_downsample_rate: encoder frames (50 a second) joined in one audio token; not used by the Q-Former.
        projector_hidden_size: width between the projector's two linear layers.
        projector_dropout: dropout probability between the layers of `"concat_linear"`.
        projector_num_queries, projector_num_layers: audio tokens of an utterance and depth, for the Q-Former only.
        projector_ctc: a CTC head on the projector whose classes are the LLM's own token embeddings and a learned blank, see
            [`CtcHead`]; not for the Q-Former.
        projector_ctc_tokens: the token ids that are its classes, in rising order; None: the whole vocabulary.
        projector_compress: `"blank"`: the LLM reads only the frames that the CTC head does not call blank, repeats averaged;
            `"tokens"`: for each of these, in its place, its own token embeddings as the head weighs them.
        projector_compress_keep: a frame stays where the tokens together have at least this probability.
        audio_model_id, audio_model_revision, text_model_id, text_model_revision: where the frozen parts come from.
        lora, encoder_lora: keyword arguments of `peft.LoraConfig` for the LLM and for the encoder, or None.
        pad_to_30s: encode Whisper's own 30 s window, padded with silence, in place of the utterance's own length.
        prompt: the text between the audio and the transcript.
        use_chat_template: ask through the LLM's chat template in place of the bare prompt.
        max_tokens_per_second: transcript tokens that a second of speech may bring before generation is ended.
        window_seconds: longest window into which the pipeline cuts a recording; training sets it to the length that 99 of 100
            of its utterances stay below. None: `WINDOW_SECONDS` of windows_slam_asr.py.
        checkpoint_form: `"standalone"` (every weight) or `"adapter"` (the base parts come from their repositories).
        audio_token_id: placeholder for one audio embedding in `input_ids`.

    Raises:
        ValueError: for blocks that the encoder does not have, unknown choices and misspelt keys.
    """

    model_type = "slam_asr"
    sub_configs_defaults = {  # noqa: RUF012 (the field is transformers' own)
        "audio_config": SubConfigSpec(config_class=AutoConfig, model_type="whisper"),
        "text_config": SubConfigSpec(config_class=AutoConfig, model_type="qwen2"),
    }

    # A mapping or None at first, a `WhisperConfig` and the LLM's own configuration after `__post_init__`.
    audio_config: Any = None
    text_config: Any = None
    prune_encoder_layers: int | list[int] = 0
    projector_type: str = "concat_linear"
    projector_layer_norm: bool = True
    projector_downsample_rate: int = 5
    projector_hidden_size: int = 2048
    projector_dropout: float = 0.1
    projector_num_queries: int = 64
    projector_num_layers: int = 2
    projector_ctc: bool = False
    projector_ctc_tokens: list[int] | None = None
    projector_compress: str | None = None
    projector_compress_keep: float = 0.1
    audio_model_id: str | None = None
    audio_model_revision: str | None = None
    text_model_id: str | None = None
    text_model_revision: str | None = None
    lora: dict[str, Any] | None = None
    encoder_lora: dict[str, Any] | None = None
    pad_to_30s: bool = False
    prompt: str = DEFAULT_PROMPT
    use_chat_template: bool = False
    max_tokens_per_second: float = 25.0
    window_seconds: float | None = None
    checkpoint_form: str = "standalone"
    audio_token_id: int = AUDIO_TOKEN_ID
    is_encoder_decoder: bool = False

    def __post_init__(self, **kwargs: Any) -> None:
        recorded = kwargs.pop("kept_encoder_layers", None)
        for name in ("format_version", "slam_asr_version"):  # each file says its own, see `to_dict`
            kwargs.pop(name, None)
        refuse_sizes(vars(self))
        if not type(self).__module__.startswith("transformers_modules"):
            # The installed package serves the pipeline itself; transformers would ask for trust_remote_code.
            kwargs.pop("custom_pipelines", None)
        for key in filter(_is_unknown, kwargs):
            raise ValueError(unknown_key("configuration key", key))
        super().__post_init__(**kwargs)
        if getattr(self.audio_config, "model_type", None) != "whisper":
            raise ValueError(
                f"audio_config has model_type {self.audio_config.model_type!r}; SLAM-ASR reads Whisper encoders only "
                "(openai/whisper-*, distil-whisper and fine-tuned copies of them)."
            )
        self.check_fields()
        kept = self.kept_encoder_layers
        if recorded is not None and list(recorded) != kept:
            raise ValueError(
                f"The configuration contradicts itself: prune_encoder_layers={self.prune_encoder_layers} keeps the blocks "
                f"{kept} of {self.audio_config.encoder_layers}, but kept_encoder_layers says {list(recorded)}."
            )

    def check_fields(self) -> None:
        """
        Raises:
            ValueError: for a field with a value that is not possible.
        """
        _check_choice("projector_type", self.projector_type, PROJECTOR_TYPES)
        _check_choice("checkpoint_form", self.checkpoint_form, CHECKPOINT_FORMS)
        for name in (
            "projector_downsample_rate",
            "projector_hidden_size",
            "projector_num_queries",
            "projector_num_layers",
        ):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be a whole number of 1 or more, got {value!r}.")
        self._check_ctc()
        if not is_number(self.max_tokens_per_second) or not 0 < self.max_tokens_per_second <= MOST_TOKENS_PER_SECOND:
            raise ValueError(
                f"max_tokens_per_second must be a number above 0, got {self.max_tokens_per_second!r}; {MOST_TOKENS_PER_SECOND} is the most."
            )
        window = self.window_seconds
        if window is not None and not (is_number(window) and 1 <= window <= ENCODER_SECONDS):
            raise ValueError(
                f"window_seconds must lie between 1 and {ENCODER_SECONDS:.0f}, the encoder's limit, or be None; got {window!r}."
            )
        kept_layers(self.prune_encoder_layers, self.audio_config.encoder_layers)

    def _check_ctc(self) -> None:
        if self.projector_ctc and not self.audio_geometry.in_time_order:
            possible = [name for name, kind in PROJECTORS.items() if kind.geometry(self).in_time_order]
            raise ValueError(
                f"projector_ctc=True is not possible with projector_type={self.projector_type!r}: CTC needs frames in the order of "
                f"time, which its outputs are not. Use one of {', '.join(map(repr, possible))}."
            )
        if self.projector_compress is not None:
            _check_choice("projector_compress", self.projector_compress, COMPRESSIONS)
            if not self.projector_ctc:
                raise ValueError(
                    f"projector_compress={self.projector_compress!r} asks the CTC head what is blank: set projector_ctc=True too."
                )
        if not is_number(self.projector_compress_keep) or not 0 < self.projector_compress_keep < 1:
            raise ValueError(
                f"projector_compress_keep is a probability between 0 and 1, got {self.projector_compress_keep!r}."
            )
        tokens = self.projector_ctc_tokens
        if tokens is not None and (
            not tokens or sorted(set(tokens)) != list(tokens) or tokens[0] < 0 or tokens[-1] >= self.vocab_size
        ):
            raise ValueError(
                f"projector_ctc_tokens must be token ids from 0 to {self.vocab_size - 1} in rising order, each once, or None."
            )

    @property
    def kept_encoder_layers(self) -> list[int]:
        """Indices of the base encoder's blocks that this model has, in order."""
        return kept_layers(self.prune_encoder_layers, self.audio_config.encoder_layers)

    def refuse_renumbering(self, present: list[int], kept: list[int]) -> None:
        """A ValueError where only `kept` stay of the encoder's blocks `present`, and its LoRA counts those in its settings."""
        lora = self.encoder_lora or {}
        names = ("target_modules", "exclude_modules", "rank_pattern", "alpha_pattern", "target_parameters")
        values = ((name, [lora[name]] if isinstance(lora.get(name), str) else lora.get(name) or ()) for name in names)
        counting = [name for name, items in values if any(re.search(r"(^|\W)\d", str(item)) for item in items)]
        counting += ["layers_to_transform"] if lora.get("layers_to_transform") is not None else []
        if counting and kept != present:
            raise ValueError(
                f"The encoder's LoRA names blocks by number ({', '.join(counting)}), and pruning gives these other numbers. "
                "Merge its LoRA first (`merge_lora`), or prune before LoRA is added."
            )

    @property
    def audio_geometry(self) -> AudioGeometry:
        """How many audio tokens a recording has and how long each is; the projector's class tells."""
        return audio_geometry(self)

    @property
    def vocab_size(self) -> int:
        """The LLM's vocabulary; transformers asks for it by this name."""
        return self.text_config.get_text_config().vocab_size

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """
        As in `PreTrainedConfig`, for files of this format and older ones.

        Raises:
            ValueError: for a newer format, sizes that no model has, and code or kernels of other repositories.
        """
        values = upgraded(config_dict)
        for key in [key for key in values if _is_unknown(key)]:
            # A key that is nearly one of ours is misspelt, and refused below.
            if not difflib.get_close_matches(key, cls.field_names(), n=1, cutoff=0.85):
                logger.warning(
                    f"config.json has the key {key!r}, which is none of SLAM-ASR's. It has no effect and is left out."
                )
                del values[key]
        refuse_sizes(values)
        return super().from_dict(without_foreign_code(values), **kwargs)

    def to_dict(self) -> dict[str, Any]:
        output = super().to_dict()
        output["format_version"], output["slam_asr_version"] = FORMAT_VERSION, PACKAGE_VERSION
        output["kept_encoder_layers"] = self.kept_encoder_layers
        output["auto_map"] = dict(AUTO_MAP)
        output["custom_pipelines"] = CUSTOM_PIPELINES
        for written in (output, output["text_config"]):
            # Checkpoints hold whole weights or none of the LLM's; whether to quantize is asked for at each load.
            written.pop("quantization_config", None)
        return output

    @classmethod
    def field_names(cls) -> list[str]:
        """The fields that this class has beside those of `PreTrainedConfig`."""
        return [name for name in cls.__dataclass_fields__ if name not in PreTrainedConfig.__dataclass_fields__]


def _is_unknown(key: str) -> bool:
    own = key in SlamAsrConfig.__dataclass_fields__ or key in _LIBRARY_KEYS
    return not own and not key.startswith("_") and not hasattr(PreTrainedConfig, key)


def upgraded(values: Mapping[str, Any]) -> dict[str, Any]:
    """
    The values of a config.json in today's format.

    Raises:
        ValueError: the file's format is newer, or its number is none.
    """
    found = values.get("format_version", 1)
    if isinstance(found, bool) or not isinstance(found, int) or found < 1:
        raise ValueError(f"format_version in config.json is {found!r}; it is a whole number of 1 or more.")
    if found > FORMAT_VERSION:
        raise ValueError(
            f"This checkpoint has format {found}, written by slam-asr {values.get('slam_asr_version', 'of a later version')}; "
            f"slam-asr {PACKAGE_VERSION} reads formats up to {FORMAT_VERSION}. Update the package, or load the checkpoint with "
            "trust_remote_code=True where the package is not imported."
        )
    for version in range(found, FORMAT_VERSION):
        values = _UPGRADES[version](values)
    return dict(values)


def upgrade_format_1(values: Mapping[str, Any]) -> dict[str, Any]:
    """Format 1 has no number; its fields mean what they mean in format 2."""
    return {**values, "format_version": 2}


_UPGRADES = {1: upgrade_format_1}


def refuse_sizes(values: Mapping[str, Any], where: str = "") -> None:
    """Raise a ValueError for a size, in `values` or the base models' configurations within, that no model has."""
    for name, value in values.items():
        inner = getattr(value, "__dict__", value) if name in ("audio_config", "text_config") else value
        if isinstance(inner, Mapping):
            refuse_sizes(inner, f"{where}{name}.")
        if isinstance(value, int | float):
            limit = next((limit for pattern, limit in _LARGEST if pattern.search(name)), None)
            if limit is not None and value > limit:
                raise ValueError(
                    f"The configuration asks for {where}{name}={value}; no model has more than {limit}. It is damaged, or meant to "
                    "fill the memory."
                )


def without_foreign_code(values: Mapping[str, Any], where: str = "") -> dict[str, Any]:
    """
    The values of a config.json without the keys that name foreign code; `auto_map` and `custom_pipelines` may name ours.

    Raises:
        ValueError: where a kernel of a Hub repository is asked for.
    """
    kept = {}
    for name, value in values.items():
        if name in _CODE_KEYS:
            own: Any = {"auto_map": AUTO_MAP, "custom_pipelines": CUSTOM_PIPELINES}.get(name)
            if own is not None and not where:
                kept[name] = value if _is_ours(value, own) else dict(own)
            continue
        if name in _KERNEL_KEYS and "/" in json.dumps(value):
            raise ValueError(
                f"The configuration asks for {where}{name}={value!r}, code of another repository. Take the key out of config.json, "
                "or give attn_implementation yourself when you load the model."
            )
        kept[name] = without_foreign_code(value, f"{where}{name}.") if isinstance(value, Mapping) else value
    return kept


def base_config(name: Any, hub: Mapping[str, Any]) -> PreTrainedConfig:
    """The configuration of a base model, which asks for no sizes that no model has and for no code of others."""
    values, _ = PreTrainedConfig.get_config_dict(name, **hub)
    refuse_sizes(values)
    without_foreign_code(values)
    return AutoConfig.from_pretrained(name, trust_remote_code=False, **hub)


def _is_ours(value: Any, own: Mapping[str, Any]) -> bool:
    """Whether a key of a config.json names this code, but for the one repository that transformers writes before each class."""
    named = set(re.findall(r'"([^"]*)--', json.dumps(value)))
    return len(named) <= 1 and json.loads(re.sub(r'"[^"]*--', '"', json.dumps(value))) == own


def unknown_key(kind: str, key: str, known: Sequence[str] | None = None) -> str:
    """What to say of a key that is none of `known`, the configuration's fields when None."""
    nearest = difflib.get_close_matches(key, known or SlamAsrConfig.field_names(), n=1)
    return f"Unknown {kind} {key!r}." + (f" Did you mean {nearest[0]!r}?" if nearest else " Leave it out.")


def kept_layers(prune: int | Sequence[int], num_layers: int) -> list[int]:
    """
    The indices, of `num_layers` base blocks, that stay when `prune` is taken away.

    Args:
        prune: how many of the last blocks, or the indices of the blocks themselves (negative from the end).
    Raises:
        ValueError: when a block does not exist or none would be left.
    """
    if isinstance(prune, bool) or not isinstance(prune, int | list | tuple):
        raise ValueError(f"prune_encoder_layers must be a whole number or a list of block indices, got {prune!r}.")
    if isinstance(prune, int):
        if not 0 <= prune < num_layers:
            raise ValueError(
                f"prune_encoder_layers={prune} is not possible: the encoder has {num_layers} blocks and must keep one. "
                f"Choose 0 to {num_layers - 1}."
            )
        return list(range(num_layers - prune))
    pruned = set()
    for index in prune:
        if isinstance(index, bool) or not isinstance(index, int) or not -num_layers <= index < num_layers:
            raise ValueError(
                f"prune_encoder_layers names block {index!r}, but the encoder's blocks are 0 to {num_layers - 1} "
                f"(or -{num_layers} to -1 from the end)."
            )
        pruned.add(index % num_layers)
    if len(pruned) != len(prune):
        raise ValueError(f"prune_encoder_layers={list(prune)} names a block twice.")
    if len(pruned) == num_layers:
        raise ValueError(f"prune_encoder_layers={list(prune)} leaves none of the encoder's {num_layers} blocks.")
    return [index for index in range(num_layers) if index not in pruned]


def is_number(value: Any) -> bool:
    """Whether a setting is a number; a truth value is none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise ValueError(f"{name}={value!r} is unknown. Choose one of {', '.join(choices)}.")
