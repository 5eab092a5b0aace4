"""A damaged checkpoint is refused, and the message names what is wrong with it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from modeling_slam_asr import SlamAsrForConditionalGeneration as Model
from modeling_slam_asr.checkpoint_slam_asr import refuse_non_finite

from .conftest import LORA, edit_tensors

STANDALONE = "model.safetensors"
PROJECTOR = "projector.linear1.weight"
ADAPTER_LORA = "language_model_lora/adapter_model.safetensors"


@pytest.fixture(scope="module")
def sound(make_tiny_model: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sound")
    model = make_tiny_model(lora=LORA)
    for form in ("standalone", "adapter"):
        model.save_pretrained(folder / form, checkpoint_form=form)
    return folder


def drop(name: str) -> Callable[[dict[str, torch.Tensor]], Any]:
    return lambda tensors: tensors.pop(name)


def add(name: str) -> Callable[[dict[str, torch.Tensor]], Any]:
    return lambda tensors: tensors.update({name: torch.zeros(2)})


def reshape(name: str) -> Callable[[dict[str, torch.Tensor]], Any]:
    return lambda tensors: tensors.update({name: torch.zeros(3, 5)})


def poison(name: str, value: float) -> Callable[[dict[str, torch.Tensor]], Any]:
    return lambda tensors: tensors[name].view(-1)[1:2].fill_(value)


LORA_A = "language_model.model.layers.0.self_attn.q_proj.lora_A.default.weight"
PEFT_A = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
ENCODER = "audio_encoder.layers.1.fc2.bias"
CASES = [
    (form, file, kind, change, name)
    for form, file, names in (
        ("standalone", STANDALONE, (PROJECTOR, ENCODER, LORA_A, "language_model.model.norm.weight")),
        ("adapter", STANDALONE, (PROJECTOR,)),
        ("adapter", ADAPTER_LORA, (PEFT_A,)),
    )
    for name in names
    for kind, change in (
        ("missing", drop(name)),
        ("of another shape", reshape(name)),
        ("NaN", poison(name, float("nan"))),
        ("NaN or inf", poison(name, float("-inf"))),
    )
] + [
    (form, file, "not part of the model", add(name), name)
    for form, file, name in (
        ("standalone", STANDALONE, "projector.linear3.weight"),
        ("standalone", STANDALONE, "audio_encoder.layers.2.fc1.weight"),
        ("adapter", STANDALONE, "projector.linear3.weight"),
        ("adapter", ADAPTER_LORA, PEFT_A.replace("layers.0", "layers.7")),
    )
]


@pytest.mark.parametrize(("form", "file", "kind", "change", "name"), CASES)
def test_a_damaged_tensor_is_named(
    form: str, file: str, kind: str, change: Callable[..., Any], name: str, sound: Path, tmp_path: Path
) -> None:
    shutil.copytree(sound / form, tmp_path / form)
    edit_tensors(tmp_path / form, change, file)
    with pytest.raises(ValueError, match=kind) as caught:
        Model.from_pretrained(tmp_path / form)
    assert name.removeprefix("base_model.model.") in str(caught.value)


@pytest.mark.parametrize(
    ("form", "file"), [("standalone", STANDALONE), ("adapter", STANDALONE), ("adapter", ADAPTER_LORA)]
)
@pytest.mark.parametrize("left", [0, 5, 0.5, 0.999])
def test_a_file_that_is_cut_off(form: str, file: str, left: float, sound: Path, tmp_path: Path) -> None:
    shutil.copytree(sound / form, tmp_path / form)
    path = tmp_path / form / file
    data = path.read_bytes()
    path.write_bytes(data[: int(left if left >= 1 else left * len(data))])
    with pytest.raises(ValueError, match="damaged or cut off") as caught:
        Model.from_pretrained(tmp_path / form)
    assert str(path) in str(caught.value)


def edit_config(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    config.update(changes)
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prune_encoder_layers": 1}, "contradicts itself"),
        ({"prune_encoder_layers": 1, "kept_encoder_layers": [0]}, "audio_encoder.layers.1"),
        ({"projector_hidden_size": 16}, "another shape: projector.linear1.bias"),
        ({"projector_downsample_rate": 4}, "projector.linear1.weight"),
        ({"projector_layer_norm": False}, "not part of the model: projector.layer_norm.bias"),
        ({"projector_type": "conv1d"}, "projector.conv1d.bias"),
        ({"projector_tpe": "conv1d"}, "Did you mean 'projector_type'"),
        ({"lora": None}, "not part of the model"),
        ({"lora": {"r": 8, "lora_alpha": 8}}, "another shape"),
        ({"lora": {"rank": 8}}, "Did you mean 'r'"),
        ({"encoder_lora": {"r": 2}}, "missing"),
    ],
)
def test_a_wrong_configuration(changes: dict[str, Any], message: str, sound: Path, tmp_path: Path) -> None:
    shutil.copytree(sound / "standalone", tmp_path / "model")
    edit_config(tmp_path / "model", **changes)
    with pytest.raises(ValueError, match=message):
        Model.from_pretrained(tmp_path / "model")


def test_missing_files(sound: Path, tmp_path: Path) -> None:
    shutil.copytree(sound / "adapter", tmp_path / "adapter")
    shutil.rmtree(tmp_path / "adapter" / "language_model_lora")
    with pytest.raises(ValueError, match=r"no language_model_lora/adapter_model.safetensors"):
        Model.from_pretrained(tmp_path / "adapter")
    shutil.copytree(sound / "standalone", tmp_path / "standalone")
    (tmp_path / "standalone" / STANDALONE).unlink()
    with pytest.raises(OSError, match=r"neither model.safetensors"):
        Model.from_pretrained(tmp_path / "standalone")


def test_a_missing_shard(make_tiny_model: Callable[..., Any], tmp_path: Path) -> None:
    make_tiny_model().save_pretrained(tmp_path, max_shard_size="20KB")
    shards = sorted(tmp_path.glob("model-*.safetensors"))
    assert len(shards) > 2
    shards[1].unlink()
    with pytest.raises(OSError, match=f"lacks {shards[1].name}"):
        Model.from_pretrained(tmp_path)


def test_a_damaged_base(tiny_whisper_encoder_dir: Path, tiny_llama_dir: Path, sound: Path, tmp_path: Path) -> None:
    whisper, llama = tmp_path / "whisper", tmp_path / "llama"
    shutil.copytree(tiny_whisper_encoder_dir, whisper)
    shutil.copytree(tiny_llama_dir, llama)
    cases: list[tuple[Path, Callable[..., Any], str]] = [
        (whisper, drop("model.encoder.layers.1.fc1.weight"), r"missing: layers\.1\.fc1\.weight"),
        (whisper, add("model.encoder.layers.2.fc1.weight"), r"not part of the model: layers\.2\.fc1\.weight"),
        (whisper, add("classifier.weight"), r"not part of the model: classifier\.weight"),
        (whisper, poison("model.encoder.conv1.bias", float("nan")), r"conv1\.bias holds NaN"),
        (llama, drop("model.layers.1.mlp.up_proj.weight"), r"missing: model\.layers\.1\.mlp\.up_proj\.weight"),
        (llama, reshape("model.norm.weight"), r"another shape: model\.norm\.weight"),
        (llama, poison("model.norm.weight", float("inf")), r"model\.norm\.weight holds NaN or inf"),
    ]
    for folder, change, message in cases:
        before = (folder / STANDALONE).read_bytes()
        edit_tensors(folder, change)
        with pytest.raises(ValueError, match=message):
            Model.from_base_models(whisper, llama, projector_hidden_size=32)
        (folder / STANDALONE).write_bytes(before)
    edit_tensors(
        whisper, lambda tensors: tensors.update({"proj_out.weight": torch.ones(2), "model.decoder.x": torch.ones(2)})
    )
    model = Model.from_base_models(whisper, llama, projector_hidden_size=32)
    model.save_pretrained(tmp_path / "adapter", checkpoint_form="adapter")
    shutil.rmtree(llama)
    with pytest.raises(OSError, match=r"is not there any more.*text_model_id"):
        Model.from_pretrained(tmp_path / "adapter")


def test_unknown_options(sound: Path, tiny_whisper_encoder_dir: Path, tiny_llama_dir: Path) -> None:
    with pytest.raises(ValueError, match=r"prune_encoder_layer'. Did you mean 'prune_encoder_layers'"):
        Model.from_base_models(tiny_whisper_encoder_dir, tiny_llama_dir, prune_encoder_layer=1)
    with pytest.raises(ValueError, match=r"Unknown option of from_pretrained 'devicemap'. Did you mean 'device_map'"):
        Model.from_pretrained(sound / "adapter", devicemap="cpu")
    with pytest.raises(ValueError, match="no floating-point type"):
        Model.from_pretrained(sound / "adapter", dtype="float31")


def test_a_header_with_endless_words_is_a_short_line(sound: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(sound / "standalone", tmp_path / "endless"))
    header = json.dumps({"a": "a" * 100_000}).encode()
    (folder / STANDALONE).write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(ValueError, match="damaged or cut off") as caught:
        Model.from_pretrained(folder)
    assert len(str(caught.value)) < 2_000


@pytest.mark.parametrize("changes", [{"projector_hidden_size": 1 << 20}, {"lora": {**LORA, "r": 1 << 20}}])
def test_sizes_that_an_adapter_does_not_have_take_no_memory(
    changes: dict[str, Any], sound: Path, tmp_path: Path
) -> None:
    resource = pytest.importorskip("resource")
    folder = Path(shutil.copytree(sound / "adapter", tmp_path / "adapter"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match="of another shape"):
        Model.from_pretrained(folder)
    assert (
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000
    )  # KiB; the sizes ask for 1.5 GB and more


def test_packed_and_one_byte_weights_are_no_damage() -> None:
    packed = torch.full((8,), torch.inf, dtype=torch.bfloat16)  # whole numbers of four bits may look so
    packed.quant_state = object()  # as bitsandbytes marks them
    refuse_non_finite("x", "weight", packed)
    refuse_non_finite("x", "weight", torch.ones(2, 2).to(torch.float8_e4m3fn))
    for bad in (torch.tensor([torch.nan]).to(torch.float8_e4m3fn), torch.full((8,), torch.inf, dtype=torch.bfloat16)):
        with pytest.raises(ValueError, match="holds NaN or infinite values"):
            refuse_non_finite("x", "weight", bad)
