"""The format of checkpoints: today's is kept here for good, newer ones are refused, and files ask for nothing that harms."""

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSpeechSeq2Seq, AutoProcessor

from modeling_slam_asr import SlamAsrConfig, SlamAsrForConditionalGeneration, SlamAsrProcessor
from modeling_slam_asr.configuration_slam_asr import (
    AUTO_MAP,
    CUSTOM_PIPELINES,
    FORMAT_VERSION,
    PACKAGE_VERSION,
    without_foreign_code,
)
from tests.modeling_slam_asr.conftest import talk

KEPT = Path(__file__).parent / "checkpoints"
# Of `KEPT / "format_2"`: a random tiny model with LoRA, stored in float16 and computed in float32.
TOKENS = [[296, 83, 44, 296, 83, 296, 1, 296], [166, 1, 139, 115, 75, 163, 237, 286]]
LOSS = 6.648936


@pytest.fixture
def edited(tmp_path: Path) -> Callable[..., Path]:
    """A copy of the kept checkpoint with keys of a JSON file replaced; None takes one away."""

    def edit(file: str = "config.json", **changes: Any) -> Path:
        folder = tmp_path / "checkpoint"
        shutil.copytree(KEPT / "format_2", folder, dirs_exist_ok=True)
        values = json.loads((folder / file).read_text()) | changes
        values = {name: value for name, value in values.items() if value is not None}
        (folder / file).write_text(json.dumps(values))
        return folder

    return edit


def check_output(folder: Path) -> None:
    model = AutoModelForSpeechSeq2Seq.from_pretrained(folder, dtype=torch.float32)
    processor = AutoProcessor.from_pretrained(folder)
    inputs = processor.apply_transcription_request([talk(1.0), talk(0.5, seed=1)])
    assert model.generate(**inputs, max_new_tokens=8, suppress_tokens=[2]).tolist() == TOKENS
    loss = model(**processor([talk(1.0)], text=["en to tre"])).loss
    assert float(loss) == pytest.approx(LOSS, abs=1e-3)


def test_todays_format(edited: Callable[..., Path], make_tiny_model: Callable[..., Any], tmp_path: Path) -> None:
    check_output(KEPT / "format_2")
    make_tiny_model().save_pretrained(tmp_path / "new")
    written = json.loads((tmp_path / "new/config.json").read_text())
    assert (written["format_version"], written["slam_asr_version"]) == (FORMAT_VERSION, PACKAGE_VERSION)
    stored = json.loads((KEPT / f"format_{FORMAT_VERSION}" / "config.json").read_text())
    assert set(written) == set(stored), "the fields have changed: is this a new format?"


def test_format_1_has_no_number(edited: Callable[..., Path]) -> None:
    check_output(edited(format_version=None, slam_asr_version=None))


@pytest.mark.parametrize("found", [FORMAT_VERSION + 1, 0, "two", True])
def test_formats_that_cannot_be_read(edited: Callable[..., Path], found: Any) -> None:
    message = "This checkpoint has format 3, written by slam-asr 9.0" if found == 3 else "format_version in config.json"
    with pytest.raises(ValueError, match=message):
        AutoModelForSpeechSeq2Seq.from_pretrained(edited(format_version=found, slam_asr_version="9.0"))


@pytest.mark.parametrize(
    ("where", "name", "value"),
    [
        ("text_config", "num_hidden_layers", 10**6),
        ("text_config", "vocab_size", 10**9),
        ("text_config", "hidden_size", 10**8),
        ("audio_config", "encoder_layers", 10**6),
        ("audio_config", "max_source_positions", 10**9),
        (None, "projector_num_layers", 10**6),
        (None, "projector_num_queries", 10**9),
        (None, "projector_hidden_size", 10**9),
        (None, "projector_downsample_rate", 10**6),
    ],
)
def test_sizes_that_no_model_has(edited: Callable[..., Path], where: str | None, name: str, value: int) -> None:
    stored = json.loads((KEPT / "format_2/config.json").read_text())
    changes = {name: value} if where is None else {where: stored[where] | {name: value}}
    with pytest.raises(ValueError, match=f"{name}={value}; no model has more than"):
        SlamAsrConfig.from_pretrained(edited(**changes))


@pytest.mark.parametrize("where", [None, "text_config", "audio_config"])
@pytest.mark.parametrize("name", ["attn_implementation", "_attn_implementation", "experts_implementation"])
def test_kernels_of_other_repositories_are_refused(edited: Callable[..., Path], where: str | None, name: str) -> None:
    stored = json.loads((KEPT / "format_2/config.json").read_text())
    changes: dict[str, Any] = {name: "org/kernel"}
    changes = changes if where is None else {where: stored[where] | changes}
    with pytest.raises(ValueError, match=f"{name}='org/kernel', code of another repository"):
        AutoModelForSpeechSeq2Seq.from_pretrained(edited(**changes))


def test_a_generation_config_that_names_code_is_refused(edited: Callable[..., Path]) -> None:
    with pytest.raises(ValueError, match="custom_generate='org/decoding', code of a repository"):
        AutoModelForSpeechSeq2Seq.from_pretrained(edited("generation_config.json", custom_generate="org/decoding"))


@pytest.mark.parametrize("part", ["encoder", "llm"])
@pytest.mark.parametrize("name", ["attn_implementation", "_attn_implementation"])
def test_kernels_that_a_base_model_names_are_refused(
    tiny_whisper_encoder_dir: Path, tiny_llama_dir: Path, tmp_path: Path, part: str, name: str
) -> None:
    bases = {"encoder": tiny_whisper_encoder_dir, "llm": tiny_llama_dir}
    bases[part] = Path(shutil.copytree(bases[part], tmp_path / part))
    config = json.loads((bases[part] / "config.json").read_text())
    (bases[part] / "config.json").write_text(json.dumps({**config, name: "org/kernel"}))
    with pytest.raises(ValueError, match=f"{name}='org/kernel', code of another repository"):
        SlamAsrForConditionalGeneration.from_base_models(str(bases["encoder"]), str(bases["llm"]))


def test_code_that_a_base_model_names_is_not_saved_with_ours(
    tiny_whisper_encoder_dir: Path, tiny_llama_dir: Path, tmp_path: Path
) -> None:
    llm = Path(shutil.copytree(tiny_llama_dir, tmp_path / "llm"))
    settings = json.loads((llm / "tokenizer_config.json").read_text())
    settings["auto_map"] = {"AutoTokenizer": ["org/code--tokens.Tokens", None]}
    (llm / "tokenizer_config.json").write_text(json.dumps(settings))
    processor = SlamAsrProcessor.from_base_models(str(tiny_whisper_encoder_dir), str(llm))
    processor.save_pretrained(tmp_path / "saved")
    assert "org/code" not in "".join(path.read_text() for path in (tmp_path / "saved").glob("*.json"))


def test_a_config_that_describes_far_more_than_the_files_hold_is_refused(edited: Callable[..., Path]) -> None:
    folder = edited("config.json")
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["vocab_size"] = 1_200_000
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"describes a model of [\d,]+ parameters, and its files hold [\d,]+\."):
        AutoModelForSpeechSeq2Seq.from_pretrained(folder)


@pytest.mark.parametrize("name", ["num_beams", "num_return_sequences", "max_new_tokens"])
def test_a_generation_config_that_would_fill_the_memory_is_refused(edited: Callable[..., Path], name: str) -> None:
    with pytest.raises(ValueError, match=rf"generation_config\.{name}=1000000000; no model has more than"):
        AutoModelForSpeechSeq2Seq.from_pretrained(edited("generation_config.json", **{name: 10**9, "do_sample": True}))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_beams", "4"),
        ("num_beams", 0),
        ("max_new_tokens", 1.5),
        ("temperature", "warm"),
        ("top_k", [5]),
        ("eos_token_id", {}),
        ("eos_token_id", [[1]]),
        ("pad_token_id", -5),
        ("suppress_tokens", 5.5),
        ("ctc_weight", "much"),
        ("stop_strings", 5),
        ("stop_strings", ["a" * n for n in range(1, 200)]),
    ],
)
def test_a_generation_config_of_other_kinds_is_named(edited: Callable[..., Path], name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"generation_config\.json of .* has {name}=.*not possible\. Mend it"):
        AutoModelForSpeechSeq2Seq.from_pretrained(edited("generation_config.json", **{name: value}))


@pytest.mark.parametrize("content", ["[]", "{", "[" * 200_000, '{"a": "' + "x" * 10_000_000 + '"}'])
def test_a_generation_config_that_is_none_is_named(edited: Callable[..., Path], content: str) -> None:
    folder = edited("generation_config.json")
    (folder / "generation_config.json").write_text(content)
    with pytest.raises(ValueError, match="is no JSON object of at most"):
        AutoModelForSpeechSeq2Seq.from_pretrained(folder)


def test_foreign_code_is_dropped() -> None:
    foreign = {"AutoModel": "org/evil--modeling.Model"}
    pipelines: dict[str, Any] = {"automatic-speech-recognition": {"impl": "org/evil--pipeline.Pipeline"}}
    values = without_foreign_code(
        {
            "auto_map": foreign,
            "custom_pipelines": pipelines,
            "custom_generate": "org/x",
            "text_config": {"auto_map": foreign},
        }
    )
    assert values == {"auto_map": AUTO_MAP, "custom_pipelines": CUSTOM_PIPELINES, "text_config": {}}
    # As transformers rewrites them for a Hub repository.
    own = {name: f"me/mine--{value}" for name, value in AUTO_MAP.items()}
    impl = copy.deepcopy(CUSTOM_PIPELINES)
    impl["automatic-speech-recognition"]["impl"] = "me/mine--pipeline_slam_asr.SlamAsrPipeline"
    assert without_foreign_code({"auto_map": own, "custom_pipelines": impl}) == {
        "auto_map": own,
        "custom_pipelines": impl,
    }


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_tokens_per_second", float("inf")),
        ("max_tokens_per_second", 1e9),
        ("max_tokens_per_second", True),
        ("window_seconds", "10"),
        ("projector_compress_keep", "0.1"),
    ],
)
def test_numbers_that_are_none_are_named(edited: Callable[..., Path], name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=name):
        SlamAsrConfig.from_pretrained(edited(**{name: value}))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("chunk_length", 200_000),
        ("sampling_rate", 9_000_000),
        ("hop_length", 1),
        ("n_fft", 10**6),
        ("feature_size", 10**7),
    ],
)
def test_settings_of_the_spectrogram_are_whispers(edited: Callable[..., Path], name: str, value: int) -> None:
    folder = edited("processor_config.json")
    values = json.loads((folder / "processor_config.json").read_text())
    values["feature_extractor"][name] = value
    (folder / "processor_config.json").write_text(json.dumps(values))
    with pytest.raises(ValueError, match=f"processor_config.json of .* has {name}={value}; in Whisper models"):
        AutoProcessor.from_pretrained(folder)
