"""`model:` and `trainer:` of a recipe: what the libraries' classes take, one place for each setting."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from modeling_slam_asr import SlamAsrForConditionalGeneration, SlamAsrProcessor
from modeling_slam_asr.projector_slam_asr import PROJECTORS
from trainers.cli import main
from trainers.errors import UserError
from trainers.recipe import Recipe, from_dict, load_recipe
from trainers.train import run_training
from trainers.training.arguments import training_arguments
from trainers.training.models import build_model, build_processor

MakeRecipe = Callable[..., Recipe]
MINIMAL: dict[str, Any] = {"audio_model": "a", "text_model": "b", "train": {"dataset": "c"}}


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"model": {"language_promt": "In {language}:"}}, r"Unknown key 'model\.language_promt'\. Did you mean 'language_prompt'"),
        ({"model": {"language_prompt": "In Danish:"}}, r"must be text with \{language\}"),
        ({"model": {"max_tokens_per_second": -1}}, "max_tokens_per_second must be a number above 0, got -1"),
        ({"model": {"audio_config": {}}}, "set audio_model and text_model"),
        ({"model": {"prompt": "x"}, "prompt": "y"}, "given twice: keep prompt, and leave model.prompt out"),
        ({"projector": {"num_queries": 0}}, "projector_num_queries must be a whole number of 1 or more"),
        (
            {"projector": {"type": "conv1"}},
            rf"projector\.type is 'conv1'; it must be one of {', '.join(map(repr, PROJECTORS))}\. Did you mean 'conv1d'",
        ),
        ({"projector": {"type": False}}, r"projector\.type is False; it must be one of 'concat_linear', .*quote the text"),
        ({"projector": {"num_querys": 9}}, "Did you mean 'num_queries'"),
        (
            {"projector": {"hidden_size": 8}, "model": {"projector_hidden_size": 9}},
            r"keep projector\.hidden_size, and leave model\.projector_hidden_size out",
        ),
        ({"lora": {"lora_alpha": 4, "alpha": 8}}, r"keep lora\.alpha, and leave lora\.lora_alpha out"),
        ({"lora": {"use_rslra": True}}, "Did you mean 'use_rslora'"),
        ({"trainer": {"optm": "sgd"}}, r"Unknown key 'trainer\.optm'\. Did you mean 'optim'"),
        ({"trainer": {"fp16": True}}, r"trainer\.fp16 cannot be set: use bf16"),
        ({"trainer": {"fsdp_config": "x"}}, "accelerate launch"),
        ({"trainer": {"neftune_noise_alpha": 5}}, "in evaluation mode"),
        ({"trainer": {"learning_rate": 1}, "learning_rate": 2}, "keep learning_rate, and leave trainer.learning_rate out"),
        ({"trainer": {"warmup_steps": 9}, "warmup_fraction": 0.5}, "keep warmup_fraction"),
        ({"trainer": ["optim"]}, "trainer must be a mapping"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(values: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        from_dict({**MINIMAL, **values})


def test_a_projector_of_the_model_package_is_one_of_recipes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PROJECTORS, "average", PROJECTORS["concat_linear"])
    assert from_dict({**MINIMAL, "projector": {"type": "average"}}).projector.type == "average"


def test_what_the_recipe_has_a_key_for_moves_there(tmp_path: Path) -> None:
    model = {"projector_layer_norm": False, "projector_type": "conv1d", "prompt": "Hi\n", "use_chat_template": True}
    trainer = {"per_device_train_batch_size": 3, "optim": "adafactor"}
    lora = {"lora_alpha": 4, "use_rslora": True}
    recipe = from_dict({**MINIMAL, "model": model, "trainer": trainer, "lora": lora})
    assert recipe.model == {"use_chat_template": True} and recipe.trainer == {"optim": "adafactor"}
    assert (recipe.projector.type, recipe.prompt, recipe.batch_size) == ("conv1d", "Hi\n", 3)
    assert recipe.projector.to_config()["projector_layer_norm"] is False
    assert recipe.lora is not None
    assert (recipe.lora.to_peft()["lora_alpha"], recipe.lora.to_peft()["use_rslora"]) == (4, True)
    recipe.save(tmp_path / "recipe.yaml")
    assert load_recipe(tmp_path / "recipe.yaml") == recipe
    assert "more" not in (tmp_path / "recipe.yaml").read_text(encoding="utf-8")
    changed = load_recipe(tmp_path / "recipe.yaml", ["trainer.optim=sgd", "model.use_chat_template=false"])
    assert (changed.trainer["optim"], changed.model["use_chat_template"]) == ("sgd", False)


def test_new_keys_at_their_defaults_do_not_change_what_a_run_is_known_by() -> None:
    recipe = from_dict(MINIMAL)
    assert not {"model", "trainer", "output_dir", "checkpoint_form"} & recipe.outcome().keys()
    assert from_dict({**MINIMAL, "model": {"window_seconds": 9}}).outcome()["model"] == {"window_seconds": 9}


def test_model_settings_reach_model_and_processor(tiny_recipe: MakeRecipe) -> None:
    model_keys = {
        "language_prompt": "Write {language}.\n", "context_prompt": "Names: {context}\n", "max_tokens_per_second": 12.5,
        "encoder_lora": {"r": 2, "lora_alpha": 4},
    }  # fmt: skip
    recipe = tiny_recipe(
        model=model_keys, lora={"use_rslora": True}, projector={"type": "qformer", "num_queries": 4, "num_layers": 1}
    )
    model, processor = build_model(recipe), build_processor(recipe)
    assert model.config.max_tokens_per_second == 12.5
    assert (model.config.projector_num_queries, model.config.projector_num_layers) == (4, 1)
    assert model.config.lora["use_rslora"] is True and model.config.encoder_lora["r"] == 2
    assert processor.language_prompt == "Write {language}.\n" and processor.context_prompt == "Names: {context}\n"
    assert processor.projector_num_queries == 4


def test_trainer_settings_reach_the_arguments(tiny_recipe: MakeRecipe) -> None:
    settings = {"optim": "adafactor", "adam_beta2": 0.98, "warmup_steps": 3, "torch_compile": False}
    args = training_arguments(tiny_recipe(trainer=settings), None, has_validation=False)
    assert (args.optim, args.adam_beta2, args.warmup_steps) == ("adafactor", 0.98, 3)
    with pytest.raises(UserError, match=r"trainer: the trainer does not take optim='adamm'.*adamw_torch"):
        training_arguments(tiny_recipe(trainer={"optim": "adamm"}), None, has_validation=False)


def test_a_trained_model_listens_to_language_and_context(
    tiny_recipe: MakeRecipe, tiny_audio_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model_keys = {"language_prompt": "Write {language}.\n", "context_prompt": "Names: {context}\n"}
    recipe = tiny_recipe(
        model={**model_keys, "encoder_lora": {"r": 2, "lora_alpha": 4}}, projector={"hidden_size": 32, "layer_norm": False},
        trainer={"optim": "adafactor"}, max_steps=2, validation=[], checkpoint_form="adapter",
    )  # fmt: skip
    run_training(recipe)
    model = SlamAsrForConditionalGeneration.from_pretrained(recipe.output_dir)
    assert model.config.encoder_lora is not None and model.config.projector_layer_norm is False
    assert any("lora_B" in name and tensor.abs().max() > 0 for name, tensor in model.audio_encoder.named_parameters())
    processor = SlamAsrProcessor.from_pretrained(recipe.output_dir)
    prompts = {processor.tokenizer.decode(processor.prompt_ids(0, None, *asked)) for asked in
               ((None, None), ("nl", None), ("da", None), (None, "Ada"))}  # fmt: skip
    assert {text.removeprefix("<s>").strip() for text in prompts} == {
        "Transcribe speech to text.", "Write Dutch.", "Write Danish.", "Names: Ada\nTranscribe speech to text.",
    }  # fmt: skip
    texts = set()
    for options in ([], ["--language", "nl"], ["--context", "Ada Ada Ada"]):
        sound = str(tiny_audio_dir / "test" / "test-03.wav")
        capsys.readouterr()
        assert main(["transcribe", recipe.output_dir, sound, "--json", "--quiet", *options]) == 0
        texts.add(json.loads(capsys.readouterr().out)["text"])
    assert len(texts) == 3


@pytest.mark.slow
def test_a_compiled_model_trains_and_is_saved_as_any_other(tiny_recipe: MakeRecipe) -> None:
    recipe = tiny_recipe(
        max_steps=1, batch_size=1, validation=[], trainer={"torch_compile": True, "torch_compile_backend": "eager"}
    )
    metrics = run_training(recipe)
    plain = build_model(recipe)
    assert metrics["trainable_params"] == plain.parameter_report()["trainable"]
    loaded = SlamAsrForConditionalGeneration.from_pretrained(recipe.output_dir)
    assert loaded.state_dict().keys() == plain.state_dict().keys()


def test_encoder_lora_needs_sound(tiny_recipe: MakeRecipe) -> None:
    recipe = tiny_recipe(model={"encoder_lora": {"r": 2, "lora_alpha": 4}}, validation=[])
    rows = [{"encoder_hidden_states": [[0.0] * 32] * 20, "seconds": 0.4, "transcript": "en", "text": "en", "id": "a"}]
    with pytest.raises(UserError, match="cannot be trained from cached encoder states"):
        run_training(recipe, datasets={"train": rows})
