"""`slam-asr import-reference`: checkpoints as the paper's code and SLAM-LLM save them."""

import pickle
import zipfile
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from transformers import AutoModelForCausalLM

from modeling_slam_asr import SlamAsrForConditionalGeneration as Model
from modeling_slam_asr import SlamAsrProcessor
from tests.modeling_slam_asr.conftest import noise, stir_lora
from tests.modeling_slam_asr.reference import Concat, Conv1d, QFormer, sequence_loss
from trainers.cli import main

SIZE = 32
PROJECTORS: dict[str, Any] = {
    "concat": lambda norm: Concat(SIZE, SIZE, 5, 24, norm),
    "conv1d": lambda norm: Conv1d(SIZE, SIZE, 4, 24, norm),
    "qformer": lambda norm: QFormer(SIZE, SIZE, queries=3, layers=1),
}


def lora_llm(folder: Path) -> Any:
    torch.manual_seed(31)
    config = peft.LoraConfig(
        r=4, lora_alpha=8, target_modules=["q_proj", "k_proj", "v_proj", "o_proj"], task_type="CAUSAL_LM"
    )
    llm = peft.get_peft_model(AutoModelForCausalLM.from_pretrained(folder), config).eval()
    stir_lora(llm)
    return llm


def write(path: Path, projector: torch.nn.Module, llm: Any, flavour: str) -> None:
    lora = {name: tensor for name, tensor in llm.named_parameters() if "lora_" in name} if llm is not None else {}
    if flavour == "paper":
        content: dict[str, Any] = {"step": 3, "projector": projector.state_dict()}
        if lora:
            content["lora"] = {name: tensor.cpu().clone() for name, tensor in lora.items()}
    elif flavour == "projector alone":
        content = dict(projector.state_dict())
    else:
        content = {f"encoder_projector.{name}": tensor for name, tensor in projector.state_dict().items()}
        content.update({f"llm.{name}": tensor for name, tensor in lora.items()})
    torch.save(content, path)


@pytest.mark.parametrize(
    ("kind", "norm", "with_lora", "flavour", "form"),
    [
        ("concat", True, True, "paper", "adapter"),
        ("concat", True, False, "projector alone", "standalone"),
        ("concat", False, True, "slam-llm", "adapter"),
        ("conv1d", True, True, "paper", "adapter"),
        ("conv1d", False, False, "slam-llm", "adapter"),
        ("qformer", True, True, "slam-llm", "adapter"),
    ],
)
def test_the_imported_model_computes_the_same(
    kind: str, norm: bool, with_lora: bool, flavour: str, form: str,
    tiny_whisper_encoder_dir: Path, tiny_llama_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    projector = PROJECTORS[kind](norm).eval()
    llm = lora_llm(tiny_llama_dir) if with_lora else AutoModelForCausalLM.from_pretrained(tiny_llama_dir)
    write(tmp_path / "best.pt", projector, llm if with_lora else None, flavour)
    arguments = [
        "import-reference", str(tmp_path / "best.pt"), "--audio-model", str(tiny_whisper_encoder_dir),
        "--text-model", str(tiny_llama_dir), "--prune-encoder-layers", "1", "--form", form,
        "--output-dir", str(tmp_path / "out"),
    ]  # fmt: skip
    assert main(arguments + (["--lora-rank", "4"] if with_lora else [])) == 0
    assert "reloaded and computes the same" in capsys.readouterr().out
    model = Model.from_pretrained(tmp_path / "out")
    assert model.config.kept_encoder_layers == [0] and model.config.checkpoint_form == form
    processor = SlamAsrProcessor.from_pretrained(tmp_path / "out")
    inputs = processor(noise(0.8), text="fem")
    tokenizer = processor.tokenizer
    with torch.no_grad():
        frames = model.audio_encoder(inputs["input_features"]).last_hidden_state
        expected = sequence_loss(
            llm, projector(frames), tokenizer("Transcribe speech to text.\n").input_ids, tokenizer("fem").input_ids,
            tokenizer.eos_token_id,
        )  # fmt: skip
        assert model(**inputs).loss.item() == pytest.approx(expected.item(), abs=1e-5)


class Malicious:
    def __reduce__(self) -> Any:
        return (print, ("code ran",))


def test_refusals(
    tiny_whisper_encoder_dir: Path, tiny_llama_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bad.pt"
    llm = lora_llm(tiny_llama_dir)
    good = {"step": 1, "projector": PROJECTORS["concat"](True).state_dict(),
            "lora": {n: p.detach() for n, p in llm.named_parameters() if "lora_" in n}}  # fmt: skip

    def error(content: Any, *more: str) -> str:
        if isinstance(content, bytes):
            path.write_bytes(content)
        elif content is not None:
            torch.save(content, path)
        code = main([
            "import-reference", str(path), "--audio-model", str(tiny_whisper_encoder_dir), "--text-model",
            str(tiny_llama_dir), "--output-dir", str(tmp_path / "out"), *more,
        ])  # fmt: skip
        captured = capsys.readouterr()
        assert code == 2 and "code ran" not in captured.out
        return " ".join(captured.err.split())

    def changed(part: str, **changes: Any) -> dict[str, Any]:
        state = {name: tensor for name, tensor in {**good[part], **changes}.items() if tensor is not None}
        return {**good, part: state}

    assert "does not exist" in error(None)
    assert "is refused" in error({"projector": Malicious()})
    assert "cannot be read" in error(b"not a checkpoint")
    for junk in (b"junk", b"RIFF\x24\x7d\0\0WAVEfmt ", b"\x80\x02X\xff\xff\xff\xff", b"PK\x03\x04 cut off"):
        message = error(junk)
        assert "cannot be read" in message and "weights_only" not in message
    assert "cannot be read" in error(pickle.dumps({"projector": {}})[:5])
    assert "holds no projector" in error({"step": 1, "projector": {}})
    assert "'optimizer'" in error({"optimizer": {}, "encoder_projector.linear1.weight": torch.ones(2, 2)})
    assert "optimizer" in error({**good, "optimizer": {}})
    assert "layer_norm.bias" in error(changed("projector", **{"layer_norm.bias": None}))
    assert "linear3.weight" in error(changed("projector", **{"linear3.weight": torch.ones(2)}))
    assert "no multiple of the audio model's width 32" in error(
        changed("projector", **{"linear1.weight": torch.ones(24, 161)})
    )
    assert "linear2.bias holds NaN" in error(changed("projector", **{"linear2.bias": torch.full((32,), float("nan"))}))
    name = next(iter(good["lora"]))
    assert "missing" in error(changed("lora", **{name: None}))
    assert "ranks [3, 4]" in error(changed("lora", **{name: torch.ones(3, 32)}))
    assert "no LoRA tensor" in error(changed("lora", **{"base_model.model.lm_head.weight": torch.ones(3)}))
    assert "has rank 4" in error(good, "--lora-rank", "8")
    assert "no LoRA weights" in error({"projector": good["projector"]}, "--lora-rank", "8")
    assert "must keep one" in error(good, "--prune-encoder-layers", "2")
    assert "neither a number" in _argument_error("--prune-encoder-layers", "two", capsys)


def _argument_error(option: str, value: str, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit):
        main(
            ["import-reference", "x.pt", "--audio-model", "a", "--text-model", "b", "--output-dir", "c", option, value]
        )
    return capsys.readouterr().err


@pytest.mark.parametrize("kind", ["compressed", "stretched"])
def test_an_archive_that_unpacks_to_more_than_it_is_is_refused(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bomb.pt"
    if kind == "compressed":
        torch.save({"projector": {"linear1.weight": torch.zeros(4096, 1024)}}, tmp_path / "plain.pt")
        with zipfile.ZipFile(tmp_path / "plain.pt") as plain, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as bomb:
            for part in plain.infolist():
                bomb.writestr(part.filename, plain.read(part))
        assert path.stat().st_size < 100_000
    else:
        torch.save({"projector": {"linear1.weight": torch.zeros(1).expand(10**6, 10**6)}}, path)
    arguments = [str(path), "--audio-model", "a", "--text-model", "b", "--output-dir", str(tmp_path / "out")]
    assert main(["import-reference", *arguments]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "bomb.pt" in said.replace(" ", "") and ("unpacks to" in said or "fewer numbers" in said)
