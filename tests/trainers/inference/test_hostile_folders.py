"""Model folders and recipes of strangers, hundreds from one seed: each is read or is one clear line."""

import json
import random
import resource
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from trainers.errors import UserError
from trainers.inference.torch_engine import load_pipeline
from trainers.recipe import load_recipe
from trainers.sound import voice_like

SEED = 21
TOLD = (ValueError, OSError, ImportError, RecursionError)  # what the command line tells in one line
VALUES: list[Any] = [
    None, True, -1, 0, 1, 3, 0.5, -0.5, 10**6, 10**9, 10**30, float("nan"), float("inf"), 1e308, "", "x", "\ud800", "../..", "/etc/passwd",
    "http://127.0.0.1/x", [], [0], [-1], [None], [[]], [10**9], {}, {"": 1}, {"a": {}}, "cuda", "flash_attention_3",
    "evil/kernel", "evil/model--code.Code", "a" * 100_000,
]  # fmt: skip
KEYS = ["auto_map", "custom_pipelines", "attn_implementation", "quantization_config", "torch_dtype", "dtype", "model_type",
        "architectures", "transformers_version", "format_version", "custom_generate", "vocab_size", "num_hidden_layers",
        "rope_parameters", "tokenizer_class", "added_tokens_decoder", "chat_template", "__class__"]  # fmt: skip


def mutate(value: Any, rng: random.Random) -> Any:
    """A JSON value with one place changed, left out, or added to."""
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key = rng.choice(list(value))
        kind = rng.random()
        if kind < 0.15:
            return {name: item for name, item in value.items() if name != key}
        if kind < 0.3:
            return {**value, rng.choice(KEYS): rng.choice(VALUES)}
        return {**value, key: mutate(value[key], rng)}
    if isinstance(value, list) and value and rng.random() < 0.7:
        place = rng.randrange(len(value))
        return [*value[:place], mutate(value[place], rng), *value[place + 1 :]]
    return rng.choice(VALUES)


def spoil_json(data: bytes, rng: random.Random) -> bytes:
    if rng.random() < 0.05:
        return rng.choice([b"", b"null", b"[]", b"{", b"[" * 200_000, b'{"a":' * 50_000, b"\xff\xfe", b"7"])
    value = json.loads(data)
    for _ in range(rng.choice([1, 1, 2, 3])):
        value = mutate(value, rng)
    return json.dumps(value).encode()


def spoil_bytes(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.randint(1, 6)):
        changed[rng.randrange(min(len(changed), rng.choice([16, 256, len(changed)])))] = rng.randrange(256)
    return bytes(changed[: rng.randrange(len(changed))] if rng.random() < 0.3 else changed)


def spoil_header(data: bytes, rng: random.Random) -> bytes:
    """A safetensors file with another header: tensors of other shapes, types and places."""
    length = int.from_bytes(data[:8], "little")
    header = spoil_json(data[8 : 8 + length], rng)
    told = rng.choice([len(header)] * 5 + [2**63 - 1, 2**32, 99_999_999])
    return told.to_bytes(8, "little") + header + data[8 + length :]


def spoil(folder: Path, rng: random.Random) -> str:
    """Change one file of a model folder; what was done, for messages."""
    path = rng.choice(sorted(path for path in folder.rglob("*") if path.suffix in (".json", ".safetensors", ".jinja")))
    data, kind = path.read_bytes(), rng.random()
    path.unlink()
    if kind < 0.03:
        path.mkdir()
        return f"{path.name} is a folder"
    if kind < 0.06:
        path.symlink_to("/dev/null" if rng.random() < 0.5 else "nowhere")
        return f"{path.name} is a link"
    if path.suffix == ".safetensors":
        data = (spoil_header if kind < 0.7 else spoil_bytes)(data, rng)
    else:
        data = (spoil_json if kind < 0.9 and path.suffix == ".json" else spoil_bytes)(data, rng)
    path.write_bytes(data)
    return f"{path.name}: {data[:200]!r}"


@pytest.mark.parametrize("count", [30, pytest.param(500, marks=pytest.mark.slow)])
def test_spoilt_model_folders(tiny_model: Any, tiny_processor: Any, tmp_path: Path, count: int) -> None:
    tiny_model.save_pretrained(tmp_path / "sound")
    tiny_processor.save_pretrained(tmp_path / "sound")
    wave = {"array": voice_like(0.5), "sampling_rate": 16_000}
    load_pipeline(tmp_path / "sound", device="cpu")(wave, max_new_tokens=2)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    rng, refused, found = random.Random(SEED), 0, []
    for number in range(count):
        folder = Path(shutil.copytree(tmp_path / "sound", tmp_path / "spoilt"))
        done = spoil(folder, rng)
        try:
            load_pipeline(folder, device="cpu")(wave, on_error="return", max_new_tokens=2)
        except TOLD as error:
            refused += 1
            assert len(str(error)) < 5_000, (number, done)
        except Exception as error:
            found.append(f"{number}: {done} ends in {type(error).__name__}: {error}")
        shutil.rmtree(folder)
    assert not found, "\n".join(found)
    assert refused > count // 4
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 600 * 1024  # KiB


@pytest.mark.parametrize("count", [60, pytest.param(1000, marks=pytest.mark.slow)])
def test_spoilt_recipes(tiny_recipe_values: dict[str, Any], tmp_path: Path, count: int) -> None:
    rng, refused, path = random.Random(SEED), 0, tmp_path / "recipe.yaml"
    values = {**tiny_recipe_values, "seed": 1}
    for number in range(count):
        text = json.dumps(mutate(mutate(values, rng), rng)) if number % 2 else yaml.dump(mutate(values, rng))
        path.write_bytes(spoil_bytes(text.encode(), rng) if rng.random() < 0.2 else text.encode())
        try:
            load_recipe(str(path))
        except UserError as error:
            refused += 1
            assert "\n" not in str(error), (number, str(error))
    assert count // 4 < refused < count
