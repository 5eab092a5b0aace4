"""Pruned blocks are gone: built, loaded, in place, reported."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, WhisperConfig

from modeling_slam_asr import SlamAsrConfig
from modeling_slam_asr import SlamAsrForConditionalGeneration as Model

from .conftest import LORA, stir_lora


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory, tiny_llama_dir: Path) -> tuple[Path, Path]:
    """A Whisper folder with six different blocks, and an LLM."""
    from transformers.models.whisper.modeling_whisper import WhisperModel

    folder = tmp_path_factory.mktemp("deep") / "whisper"
    config = WhisperConfig(
        d_model=32, encoder_layers=6, encoder_attention_heads=4, encoder_ffn_dim=64, num_mel_bins=40, vocab_size=100,
        decoder_layers=1, decoder_attention_heads=4, decoder_ffn_dim=16, pad_token_id=0,
    )  # fmt: skip
    torch.manual_seed(21)
    WhisperModel(config).save_pretrained(folder)
    return folder, tiny_llama_dir


def build(deep: tuple[Path, Path], **options: Any) -> Any:
    torch.manual_seed(22)
    return Model.from_base_models(*deep, projector_hidden_size=32, **options)


def loss(model: Any, batch: Any) -> float:
    with torch.no_grad():
        return model(**batch).loss.item()


@pytest.mark.parametrize(
    ("prune", "kept"), [(2, [0, 1, 2, 3]), ([1, 2], [0, 3, 4, 5]), ([-1, 0], [1, 2, 3, 4]), ([-2, -4, 0, 1], [3, 5])]
)
def test_all_ways_give_the_same_model(
    prune: Any, kept: list[int], deep: tuple[Path, Path], batch: Any, tmp_path: Path
) -> None:
    whole = build(deep)
    built = build(deep, prune_encoder_layers=prune)
    assert built.config.kept_encoder_layers == built.audio_encoder.kept_layers == kept
    assert len(built.audio_encoder.layers) == len(kept)
    for block, index in zip(built.audio_encoder.layers, kept, strict=True):
        assert torch.equal(block.fc1.weight, whole.audio_encoder.layers[index].fc1.weight)
    expected = loss(built, batch)
    assert abs(expected - loss(whole, batch)) > 1e-7

    for form in ("adapter", "standalone"):
        whole.save_pretrained(tmp_path / form, checkpoint_form=form)
        loaded = Model.from_pretrained(tmp_path / form, prune_encoder_layers=prune)
        assert loss(loaded, batch) == pytest.approx(expected, abs=1e-6)
        loaded.save_pretrained(tmp_path / "again", checkpoint_form=form)
        again = Model.from_pretrained(tmp_path / "again")
        assert loss(again, batch) == pytest.approx(expected, abs=1e-6)
        assert again.config.kept_encoder_layers == kept
    in_place = copy.deepcopy(whole)
    in_place.prune_encoder_layers(prune)
    assert loss(in_place, batch) == pytest.approx(expected, abs=1e-6)
    assert {name: p.shape for name, p in in_place.named_parameters()} == {
        n: p.shape for n, p in built.named_parameters()
    }


def test_deeper_but_never_shallower(deep: tuple[Path, Path], batch: Any, tmp_path: Path) -> None:
    model = build(deep, prune_encoder_layers=[0], lora=LORA, encoder_lora=LORA)
    stir_lora(model)
    for form in ("adapter", "standalone"):
        model.save_pretrained(tmp_path / form, checkpoint_form=form)
    model.prune_encoder_layers([0, 3])
    expected = loss(model, batch)
    for form in ("adapter", "standalone"):
        deeper = Model.from_pretrained(tmp_path / form, prune_encoder_layers=[0, 3])
        assert deeper.config.kept_encoder_layers == [1, 2, 4, 5]
        assert loss(deeper, batch) == pytest.approx(expected, abs=1e-5)
        for fewer in (0, 1, [3], []):
            with pytest.raises(ValueError, match=r"asks for the encoder blocks \[0\].*not less"):
                Model.from_pretrained(tmp_path / form, prune_encoder_layers=fewer)
        with pytest.raises(ValueError, match="must keep one"):
            Model.from_pretrained(tmp_path / form, prune_encoder_layers=6)
    with pytest.raises(ValueError, match=r"needs? the blocks \[3\], which are gone already"):
        model.prune_encoder_layers([0])
    with pytest.raises(ValueError, match="names block 9"):
        model.prune_encoder_layers([9])


@pytest.mark.parametrize(
    "settings",
    [
        {"layers_to_transform": [1], "layers_pattern": "layers"},
        {"rank_pattern": {"layers.1.self_attn.q_proj": 2}},
        {"target_modules": ["layers.1.self_attn.q_proj"]},
    ],
)
def test_lora_that_counts_blocks_is_not_renumbered(
    settings: dict[str, Any], deep: tuple[Path, Path], batch: Any, tmp_path: Path
) -> None:
    """Its settings count the blocks that were there: pruning would leave a checkpoint that cannot be loaded."""
    model = build(deep, prune_encoder_layers=[5], encoder_lora={**LORA, **settings})
    stir_lora(model)
    expected = loss(model, batch)
    for form in ("adapter", "standalone"):
        model.save_pretrained(tmp_path / form, checkpoint_form=form)
        assert loss(Model.from_pretrained(tmp_path / form), batch) == pytest.approx(expected, abs=1e-6)
        with pytest.raises(ValueError, match=rf"by number \({next(iter(settings))}\)"):
            Model.from_pretrained(tmp_path / form, prune_encoder_layers=[0, 5])
    with pytest.raises(ValueError, match="prune before LoRA is added"):
        model.prune_encoder_layers([0, 5])
    model.prune_encoder_layers(1)  # what is pruned already
    model.merge_lora()
    model.prune_encoder_layers([0, 5])
    assert model.config.kept_encoder_layers == [1, 2, 3, 4]


def test_pruning_in_place_keeps_the_mode_and_the_training(deep: tuple[Path, Path], batch: Any) -> None:
    model = build(deep).train()
    model.prune_encoder_layers(3)
    assert model.training and len(model.audio_encoder.layers) == 3
    model(**batch).loss.backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


def test_report_counts_what_is_there(deep: tuple[Path, Path]) -> None:
    whole = build(deep).parameter_report()
    model = build(deep, prune_encoder_layers=2, lora=LORA)
    report = model.parameter_report()
    assert report["total"] == sum(p.numel() for p in model.parameters())
    assert report["trainable"] == sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert report["trainable"] == report["projector"] + report["lora"]
    assert report["encoder_unpruned"] == whole["encoder"] and report["total_unpruned"] == whole["total"]
    assert whole["saving"] == 0 and whole["paper"]["saving"] == 0
    assert report["total"] == report["encoder"] + report["projector"] + report["language_model"] + report["lora"]


@pytest.mark.parametrize(
    ("audio", "blocks", "saving"),
    [
        ({"d_model": 768, "encoder_layers": 12}, 2, (0.13, 0.15)),
        ({"d_model": 1024, "encoder_layers": 24}, 2, (0.07, 0.08)),
    ],
)
def test_the_papers_accounting(audio: dict[str, Any], blocks: int, saving: tuple[float, float]) -> None:
    """Two of 12 (small) and of 24 (medium) blocks: the paper reports 7 to 14 % fewer parameters."""
    whisper = WhisperConfig(
        **audio, encoder_ffn_dim=4 * audio["d_model"], encoder_attention_heads=audio["d_model"] // 64
    )
    llm = LlamaConfig(hidden_size=2048, num_hidden_layers=1, vocab_size=10, num_attention_heads=16)
    with torch.device("meta"):
        model = Model(SlamAsrConfig(audio_config=whisper, text_config=llm, prune_encoder_layers=blocks))
    assert saving[0] < model.parameter_report()["paper"]["saving"] < saving[1]


def test_pruned_blocks_are_never_built(deep: tuple[Path, Path], tmp_path: Path) -> None:
    model = build(deep, prune_encoder_layers=4)
    model.save_pretrained(tmp_path)
    names = {name for name, _ in model.named_parameters()}
    assert not any(
        f"layers.{index}." in name for name in names for index in range(2, 6) if name.startswith("audio_encoder")
    )
    whole_config = SlamAsrConfig.from_pretrained(tmp_path)
    assert whole_config.audio_config.encoder_layers == 6
    with torch.device("meta"):
        assert len(Model(whole_config).audio_encoder.layers) == 2
