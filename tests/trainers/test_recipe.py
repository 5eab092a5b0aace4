"""Recipes: what is accepted, what is refused and how it is said."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from datasets import Dataset

from trainers.errors import UserError
from trainers.recipe import EFFECTS, Recipe, changed_keys, from_dict, load_recipe
from trainers.recipes.recipe_values import RECIPE_FOLDER, apply_overrides
from trainers.study.plan import named_run
from trainers.study.recipe import load_study
from trainers.training.arguments import trained_window, training_arguments

REPOSITORY = Path(__file__).parents[2]
PACKAGED = sorted(
    path.stem for path in RECIPE_FOLDER.glob("*.yaml") if path.stem != "paper_common" and "study" not in path.stem
)
PAPER = [f"paper_{size}_{language}{lora}" for size in ("small", "medium", "large-v2") for language in ("da", "nl", "en")
         for lora in ("", "_lora")]  # fmt: skip
TOKEN = "hf_" + "aB3dE6gH9jK2mN5pQ8rS1tU4vW7xY0zAbC"
MINIMAL = {"audio_model": "a", "text_model": "b", "train": {"dataset": "c"}}


def test_the_defaults_are_the_papers() -> None:
    recipe = from_dict(MINIMAL)
    assert (recipe.learning_rate, recipe.weight_decay, recipe.max_grad_norm) == (1e-4, 0.01, 1.0)
    assert (recipe.batch_size, recipe.seed, recipe.early_stopping_min_delta) == (4, 42, 0.005)
    assert (recipe.schedule, recipe.warmup_fraction, recipe.min_lr_fraction) == ("cosine_with_min_lr", 0.05, 0.1)
    assert (recipe.projector.downsample_rate, recipe.projector.hidden_size, recipe.projector.dropout) == (5, 2048, 0.1)
    assert (recipe.decoding.num_beams, recipe.decoding.max_new_tokens, recipe.decoding.repetition_penalty) == (
        2,
        None,  # from each recording's length
        1,
    )
    lora = from_dict({**MINIMAL, "lora": True}).lora
    assert lora is not None
    assert lora.to_peft() == {
        "r": 8,
        "lora_alpha": 16,
        "lora_dropout": 0.1,
        "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj"],
        "use_dora": False,
    }


@pytest.mark.parametrize("name", [*PACKAGED, *PAPER])
def test_packaged_recipes_load_and_take_the_common_overrides(name: str) -> None:
    overrides = ["output_dir=out", "max_steps=7", "save_steps=3", "seed=1", "prune_encoder_layers=4"]
    recipe = load_recipe(name, overrides)
    assert (recipe.output_dir, recipe.max_steps, recipe.save_steps, recipe.seed) == ("out", 7, 3, 1)
    assert recipe.prune_encoder_layers == 4
    assert from_dict(recipe.to_dict()) == recipe
    # The paper's limit, and that of the miniature's recorded figures.
    assert recipe.decoding.max_new_tokens == (None if name == "own_data" else 128)


def test_the_papers_grid_is_complete() -> None:
    expected = {
        ("small", False): (8, 5), ("medium", False): (12, 8), ("large-v2", False): (6, 3),
        ("small", True): (15, 5), ("medium", True): (15, 8), ("large-v2", True): (10, 6),
    }  # fmt: skip
    for (size, lora), (epochs, patience) in expected.items():
        for language, hours in (("da", None), ("nl", 50), ("en", 100)):
            recipe = load_recipe(f"paper_{size}_{language}{'_lora' if lora else ''}")
            assert recipe.audio_model == f"openai/whisper-{size}"
            assert recipe.text_model == "Qwen/Qwen2.5-3B"
            assert (recipe.num_epochs, recipe.early_stopping_patience) == (epochs, patience)
            assert (recipe.lora is not None) is lora
            assert recipe.language == language
            assert recipe.train[0].max_hours == hours


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("learning_rat=1", "Did you mean 'learning_rate'"),
        ("train.langage=da", "Did you mean 'language'"),
        ("lora.rank=4", "Unknown key 'lora.rank'"),
        ("batch_size=four", "batch_size must be a whole number"),
        ("batch_size=true", "batch_size must be a whole number"),
        ("train.language=no", "quote the text"),
        ("dtype=float61", "'float32', 'bfloat16'"),
        ("prune_encoder_layers=-1", "prune_encoder_layers=-1"),
        ("prune_encoder_layers=two", "a whole number or a list"),
        ("max_steps=0", "max_steps=0 must be above 0"),
        ("max_bad_fraction=2", "a fraction"),
        ("train=[]", "train is empty"),
        ("train=my/train.jsonl", "Write train.dataset=my/train.jsonl."),
        ("train.min_duration=40", "leave no utterance"),
        ("seed.x=1", "seed must be a whole number"),
        ("audio_model.x=1", "has no keys"),
        ("nonsense", "key=value"),
        ("langauge=nl", "Did you mean 'language'"),
        (
            "train.streaming=true",
            "train.streaming is true: its length, and so its epochs, are not known: set max_steps.",
        ),
        ("train={dataset: a/b, streaming: true, max_hours: 5}", "max_hours=5.0 chooses among all recordings"),
        ("test={dataset: a/b, streaming: true}", "test.streaming is true, but only training data are streamed"),
        ("early_stopping_patience=3", "needs validation"),
        ("audio_model=null", "audio_model must be text"),
        ("learning_rate=.nan", "learning_rate=nan must be above 0"),
        ("weight_decay=-1", "weight_decay=-1.0 must be 0 or more"),
        ("num_workers=-1", "num_workers=-1 must be 0 or more"),
        ("decoding.num_beams=0", "decoding.num_beams=0 must be above 0"),
        ("projector.hidden_size=0", "projector.hidden_size=0 must be above 0"),
        ("lora.r=0", "lora.r=0 must be above 0"),
        ("decoding.ctc_weight=1", "decoding.ctc_weight=1.0 must be from 0 to below 1"),
        ("lora.dropout=3", "lora.dropout=3.0 is a fraction"),
        ("augmentation.noise.probability=7", "noise.probability=7.0 is a fraction"),
        ("augmentation.spec_augment.time_width=-4", "spec_augment.time_width=-4 must be 0 or more"),
        ("normalizer=klingon", "There is no normalizer 'klingon'"),
        ("push_to_hub=a/b/c", "push_to_hub: Repo id"),
        ("push_to_hub=slam-danish", "has no namespace"),
        ("push_to_hub_private=true", "set push_to_hub too"),
        ("train.3.split=dev", "names element 3 of what is one alone"),
    ],
)
def test_a_wrong_override_is_explained(tmp_path: Path, override: str, says: str) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("audio_model: a\ntext_model: b\ntrain: {dataset: c}\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"Recipe r\.yaml") as caught:
        load_recipe(path, [override])
    assert says in str(caught.value)


def test_all_that_a_stream_lacks_is_told_at_once() -> None:
    stream = {"dataset": "a/b", "streaming": True}
    with pytest.raises(UserError) as caught:
        load_recipe("own_data", ["train={dataset: a/b, streaming: true}", "validation={dataset: c/d}", "language=nl"])
    for key in ("non_speech to 0", "warm_start needs", "set max_steps", "set batch_size alone"):
        assert key in str(caught.value)
    assert from_dict({**MINIMAL, "train": stream, "max_steps": 5}).train[0].streaming


def test_home_and_powers_of_ten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    recipe = load_recipe("miniature", ["output_dir=~/runs/x", "trainer.adam_epsilon=1e-8"])
    assert recipe.output_dir == str(tmp_path / "runs/x") and recipe.trainer == {"adam_epsilon": 1e-8}
    assert Path(from_dict({**MINIMAL, "init_from": "~/model"}).init_from or "") == tmp_path / "model"
    assert load_recipe("miniature", ["trainer.optim_args=rank=1e-8"]).trainer["optim_args"] == "rank=1e-8"
    with pytest.raises(UserError, match="bf16_full_eval cannot be set"):
        load_recipe("miniature", ["trainer.bf16_full_eval=true"])


def test_a_run_by_the_ctc_head_alone_has_no_lora() -> None:
    alone = {**MINIMAL, "projector": {"ctc": True}, "ctc_weight": 1}
    assert from_dict(alone).ctc_weight == 1 and from_dict({**alone, "lora": True, "ctc_weight": 0.9}).lora is not None
    with pytest.raises(UserError, match="its LoRA learns nothing: lower ctc_weight"):
        from_dict({**alone, "lora": True})


def test_data_to_train_on_is_no_data_to_validate_on(tmp_path: Path) -> None:
    """The split of every role is `train` where none is given."""

    def refused(train: Any, **other: Any) -> str:
        with pytest.raises(UserError, match="figures of data that was trained on say nothing") as caught:
            from_dict({**MINIMAL, "train": train, **other})
        return str(caught.value)

    hub = {"dataset": "name/speech", "config": "da"}
    assert refused(hub, validation=hub) == (
        "train and validation both name 'name/speech', split 'train': figures of data that was trained on say nothing. "
        "Set validation.split (such as validation.split=validation), or leave it out (validation=[])."
    )
    assert "test.1.split=test" in refused(hub, test=[{**hub, "split": "test"}, {**hub, "language": "da"}])
    manifest = tmp_path / "all.jsonl"
    manifest.write_text("", encoding="utf-8")
    again = {"dataset": f"{tmp_path}/../{tmp_path.name}/all.jsonl", "split": "validation"}  # it has no splits
    assert "Set validation.dataset, or" in refused({"dataset": str(manifest)}, validation=again)
    kaldi = tmp_path / "kaldi"
    (kaldi / "dev").mkdir(parents=True)
    (kaldi / "wav.scp").touch()
    assert "Set test.dataset, or" in refused({"dataset": str(kaldi)}, test={"dataset": str(kaldi), "split": "test"})
    (kaldi / "dev" / "wav.scp").touch()
    for one, another in (
        (hub, {**hub, "split": "validation"}),
        (hub, {**hub, "config": "nl"}),
        ({**hub, "language": "da"}, {**hub, "language": "nl"}),
        ({**hub, "max_duration": 10}, {**hub, "min_duration": 10}),
        ({"dataset": str(kaldi)}, {"dataset": str(kaldi), "split": "dev"}),
    ):
        assert from_dict({**MINIMAL, "train": one, "validation": another, "test": another}).test


def test_numbers_in_scientific_notation(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("audio_model: a\ntext_model: b\ntrain: {dataset: c}\nlearning_rate: 3e-5\n", encoding="utf-8")
    assert load_recipe(path).learning_rate == 3e-5
    assert load_recipe(path, ["learning_rate=1e-3"]).learning_rate == 1e-3


def test_base_is_merged(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(
        "audio_model: a\ntext_model: b\ntrain: {dataset: c, language: da}\n", encoding="utf-8"
    )
    (tmp_path / "b.yaml").write_text("base: a.yaml\ntext_model: z\ntrain: {split: dev}\n", encoding="utf-8")
    recipe = load_recipe(tmp_path / "b.yaml")
    assert (recipe.audio_model, recipe.text_model) == ("a", "z")
    assert (recipe.train[0].dataset, recipe.train[0].language, recipe.train[0].split) == ("c", "da", "dev")
    (tmp_path / "a.yaml").write_text("base: b.yaml\n", encoding="utf-8")
    with pytest.raises(UserError, match="circle"):
        load_recipe(tmp_path / "b.yaml")


def test_a_language_at_the_top_is_every_data_sets(tmp_path: Path) -> None:
    recipe = load_recipe("own_data", ["language=da"])
    assert recipe.language == "da"
    assert [spec.language for spec in (*recipe.train, *recipe.validation)] == ["da", "da", "da"]
    with pytest.raises(UserError, match="quote the text"):
        load_recipe("own_data", ["language=no"])


def test_missing_recipe_names_the_nearest() -> None:
    with pytest.raises(UserError, match="Did you mean 'miniature'"):
        load_recipe("minature")


def test_a_study_is_sent_to_its_own_command() -> None:
    with pytest.raises(UserError, match=r"it is a study: `slam-asr study miniature_study`.*--run NAME"):
        load_recipe("miniature_study")


def test_the_papers_runs_are_its_studys(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    study = load_study("paper_study")
    old = load_recipe("paper_medium_nl_lora", ["prune_encoder_layers=2"])
    name = "whisper-medium-nl-prune2-lora-seed42"
    assert "`slam-asr train paper_study --run whisper-medium-nl-prune0-lora-seed42`" in caplog.text
    new = named_run(study, name, ["logging_steps=5"])
    assert (new.name, new.output_dir, new.logging_steps) == (name, f"runs/{name}", 5)
    assert new.outcome() == old.outcome()
    assert named_run(study, f"{name}-0123abcd") == named_run(study, name)
    (tmp_path / "own.yaml").write_text("base: paper_medium_nl_lora.yaml\nprune_encoder_layers: 2\n", encoding="utf-8")
    assert load_recipe(tmp_path / "own.yaml") == old
    with pytest.raises(
        UserError, match=r"no run 'whisper-medium-nl-prune3-lora-seed42'. Did you mean 'whisper-medium-nl-prune"
    ):
        named_run(study, "whisper-medium-nl-prune3-lora-seed42")
    with pytest.raises(UserError, match="needs what the study makes first"):
        named_run(load_study("real_speech_study"), "whisper-base-gemma-3-270m-nl-prune1-healed_encoder-lora-seed1")


@pytest.mark.parametrize(
    "values",
    [
        {"trainer": {"hub_token": TOKEN}},
        {"trainer": {"push_to_hub": True, "hub_token": TOKEN}},
        {"hub_token": TOKEN},
        {"report_to": [f"wandb:{TOKEN}"]},
        {"name": f"run-{TOKEN}"},
        {"push_to_hub": TOKEN},
        {"trainer": {"project": TOKEN}},
        {"train": [{"dataset": f"https://me:{TOKEN}@example.org/train.jsonl"}]},
        {"train": [{"dataset": "https://me:secret@example.org/train.jsonl"}]},
        {"audio_model": "https://me:secret@huggingface.co/openai/whisper-tiny"},
    ],
    ids=str,
)
def test_a_credential_in_a_recipe_is_refused_and_not_repeated(values: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"holds .*(token|password).*hf auth login") as refused:
        from_dict({**MINIMAL, **values})
    assert TOKEN not in str(refused.value) and "secret@" not in str(refused.value)
    with pytest.raises(UserError, match=r"trainer\.hub_token cannot be set: .*hf auth login"):
        from_dict({**MINIMAL, "trainer": {"hub_token": "of another shape"}})


def test_missing_key_and_broken_yaml(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("text_model: b\ntrain: {dataset: c}\n", encoding="utf-8")
    with pytest.raises(UserError, match="'audio_model' is missing"):
        load_recipe(path)
    path.write_text("a: [1\n", encoding="utf-8")
    with pytest.raises(UserError, match="not YAML"):
        load_recipe(path)


def test_overrides_reach_into_lists_and_make_mappings() -> None:
    values = {"train": [{"dataset": "a"}, {"dataset": "b"}], "lora": None}
    changed = apply_overrides(values, ["train.language=da", "train.1.split=dev", "lora.r=4"])
    assert changed == {
        "train": [{"dataset": "a", "language": "da"}, {"dataset": "b", "language": "da", "split": "dev"}],
        "lora": {"r": 4},
    }
    assert values["lora"] is None
    assert apply_overrides({"train": {"dataset": "a"}}, ["train.0.split=dev"])["train"] == {
        "dataset": "a",
        "split": "dev",
    }
    with pytest.raises(UserError, match="element 7 of a list of 2"):
        apply_overrides(values, ["train.7.language=da"])


def test_saved_recipe_is_the_recipe(tmp_path: Path) -> None:
    recipe = load_recipe("paper_small_da_lora", ["prune_encoder_layers=[-1, 3]"])
    recipe.save(tmp_path / "recipe.yaml")
    assert load_recipe(tmp_path / "recipe.yaml") == recipe
    assert changed_keys(tmp_path / "recipe.yaml", recipe) == []
    other = load_recipe(tmp_path / "recipe.yaml", ["seed=7", "lora.r=4"])
    assert changed_keys(tmp_path / "recipe.yaml", other) == ["seed", "lora"]


@pytest.mark.parametrize(("seconds", "window"), [([2.0] * 98 + [4.41] * 2, 4.5), ([1.0] * 9, 3.0), ([29.0] * 9, 25.0)])
def test_windows_are_as_long_as_what_was_trained_on(seconds: list[float], window: float) -> None:
    assert trained_window(Dataset.from_dict({"seconds": seconds})) == window


def test_bf16_needs_no_accelerator(tmp_path: Path) -> None:
    recipe = from_dict({**MINIMAL, "bf16": True, "max_steps": 1, "output_dir": str(tmp_path)})
    args = training_arguments(recipe, None, has_validation=False)
    assert args.bf16
    assert args.use_cpu is not torch.accelerator.is_available()


@pytest.mark.parametrize("path", sorted((REPOSITORY / "accelerate_configs").glob("*.yaml")), ids=lambda path: path.stem)
def test_a_launch_leaves_the_precision_to_the_recipe(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`accelerate launch` hands the configuration's precision on by the environment, where it goes before a float32 recipe."""
    launched = yaml.safe_load(path.read_text(encoding="utf-8"))["mixed_precision"]
    assert launched == "no"
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", launched)
    for bf16, computed in ((False, "no"), (True, "bf16")):
        recipe = from_dict({**MINIMAL, "bf16": bf16, "max_steps": 1, "output_dir": str(tmp_path)})
        assert training_arguments(recipe, None, has_validation=False).mixed_precision == computed


def test_one_way_to_fill_a_batch(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    text = "audio_model: a\ntext_model: b\ntrain: {dataset: c}\n"
    path.write_text(f"{text}batch_size: 4\nbatch_seconds: 40\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"gives batch_size and batch_seconds.*batch_seconds would win"):
        load_recipe(path)
    path.write_text(f"{text}batch_seconds: 40\n", encoding="utf-8")
    with pytest.raises(UserError, match="The command line gives batch_tokens and batch_size"):
        load_recipe(path, ["batch_tokens=400", "batch_size=2"])
    switched = load_recipe(path, ["batch_size=6"])
    assert (switched.batch_size, switched.batch_seconds) == (6, None)
    (tmp_path / "child.yaml").write_text("base: r.yaml\nbatch_tokens: 90\n", encoding="utf-8")
    child = load_recipe(tmp_path / "child.yaml")
    assert (child.batch_seconds, child.batch_tokens) == (None, 90)
    child.save(tmp_path / "saved.yaml")
    assert load_recipe(tmp_path / "saved.yaml") == child
    # As versions before wrote it, with every key and the one that was not in force.
    path.write_text(f"{text}batch_size: 4\nbatch_seconds: 40.0\nbatch_tokens: null\n", encoding="utf-8")
    assert load_recipe(path).batch_seconds == 40


def test_every_key_says_what_changing_it_changes() -> None:
    assert {EFFECTS[key] for key in ("audio_model", "projector", "lora", "model", "init_from", "dtype")} == {"model"}
    assert {EFFECTS[key] for key in ("name", "output_dir", "device", "logging_steps", "save_steps")} == {"nothing"}
    assert (EFFECTS["seed"], EFFECTS["checkpoint_form"]) == ("result", "files")
    outcome = load_recipe("miniature").outcome()
    assert outcome.keys() == {key for key, effect in EFFECTS.items() if effect in ("model", "result")} - {
        "model",
        "trainer",
        "warm_start",
        "ctc_weight",
    }


def test_sounds_without_a_word_at_the_top_are_a_data_set(tmp_path: Path) -> None:
    def sources(*overrides: str) -> list[tuple[str, int | None, int]]:
        recipe = load_recipe("own_data", ["train.dataset=a.jsonl", *overrides])
        recipe.save(tmp_path / "saved.yaml")
        assert load_recipe(tmp_path / "saved.yaml") == recipe
        return [(spec.dataset, spec.max_samples, spec.min_characters) for spec in recipe.train]

    assert sources() == [("a.jsonl", None, 1), ("non_speech", 200, 0)]
    assert sources("non_speech=5", "train.max_samples=9") == [("a.jsonl", 9, 1), ("non_speech", 5, 0)]
    assert sources("non_speech=0") == [("a.jsonl", None, 1)]
    for wrong in ("many", "-1", "true", "0.5"):
        with pytest.raises(UserError, match="must be a number of sounds"):
            sources(f"non_speech={wrong}")


def test_the_form_of_transcripts(tmp_path: Path) -> None:
    def form(recipe: Recipe) -> list[tuple[bool, bool]]:
        return [(spec.lowercase, spec.remove_punctuation) for spec in (recipe.train[0], *recipe.validation)]

    assert form(load_recipe("own_data")) == [(False, False)] * 2  # subtitles are read by people
    assert form(load_recipe("own_data", ["transcripts=paper"])) == [(True, True)] * 2
    assert form(load_recipe("miniature")) == [(True, True)] * 2
    assert form(load_recipe("own_data", ["train.lowercase=true"])) == [(True, False), (False, False)]
    load_recipe("own_data").save(tmp_path / "saved.yaml")
    assert form(load_recipe(tmp_path / "saved.yaml")) == [(False, False)] * 2
    with pytest.raises(UserError, match="transcripts is 'written'; it must be one of 'paper', 'as_written'"):
        load_recipe("own_data", ["transcripts=written"])
