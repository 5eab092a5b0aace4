"""The card: metadata, every figure from a file, the user's text, the licence."""

import ast
import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard, ModelCardData

from hub_upload import example, user_text
from hub_upload.build import BuildOptions, write_card
from hub_upload.card import CardOptions, result_rows
from hub_upload.card_lines import TEXTS, spans
from hub_upload.client import ConflictError
from hub_upload.example import CARD, examples, read_example, render_example
from hub_upload.facts import read_facts
from hub_upload.foreign import foreign_metadata
from hub_upload.licences import KNOWN, NOTICES, Part, derive_licence, known_licence, notices, readable_identifier
from hub_upload.markdown import fences
from hub_upload.plots import plot_depth
from hub_upload.snippets import snippets
from hub_upload.user_text import UserText, digest, extract, merge, wrap
from trainers.credentials import find_paths
from trainers.errors import UserError


@pytest.fixture
def card(model_folder: Path) -> ModelCard:
    return ModelCard.load(write_card(model_folder, BuildOptions(measure=False), CardOptions("acme/tiny")))


def test_metadata(card: ModelCard) -> None:
    data = card.data.to_dict()
    assert data["library_name"] == "transformers"
    assert data["pipeline_tag"] == "automatic-speech-recognition"
    assert data["language"] == ["da", "nl"]
    assert data["license"] == "cc-by-4.0"
    assert data["datasets"] == ["fsicoli/common_voice_22_0", "google/fleurs"]
    assert data["metrics"] == ["wer", "cer"]
    assert "custom_code" in data["tags"]
    assert "base_model" not in data, "the tests' bases are not on the Hub"


def test_languages_are_codes_and_data_on_this_machine_are_no_repositories(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "speech" / "da").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    recipe = yaml.safe_load((model_folder / "recipe.yaml").read_text())
    local = [{"dataset": "my/train.tsv", "language": "Danish"}, {"dataset": "speech/da", "language": "da_DK"}]
    recipe["train"] = [*recipe["train"], *local, {"dataset": "texts/da.txt", "language": "da"}]
    (model_folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    card = ModelCard.load(write_card(model_folder, BuildOptions(measure=False), CardOptions("acme/tiny")))
    assert card.data.to_dict()["language"] == ["da", "nl"], "the Hub takes nothing else"
    assert card.data.to_dict()["datasets"] == ["fsicoli/common_voice_22_0", "google/fleurs"]


@pytest.mark.parametrize(
    ("stages", "told"),
    [
        ({"warm_start": {"seconds": 36_000.0, "steps": 50}}, "a CTC warm start of 10.0 h, 50 steps"),
        (
            {"warm_start": {"seconds": 18_000.0, "steps": 50}, "healing": {"seconds": 18_000.0, "steps": 250}},
            "healing the encoder for 5.0 h, 250 steps and a CTC warm start of 5.0 h, 50 steps",
        ),
    ],
)
def test_what_came_before_the_run_is_told(model_folder: Path, stages: dict[str, Any], told: str) -> None:
    path = model_folder / "metrics.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **stages}))
    text = ModelCard.load(write_card(model_folder, BuildOptions(measure=False), CardOptions("acme/tiny"))).text
    assert f"6.0 min, 700 steps, after {told}" in text and "about 0.202 kWh" in text


def test_base_models_are_named_with_their_relation(model_folder: Path) -> None:
    path = model_folder / "config.json"
    config = json.loads(path.read_text())
    config |= {"audio_model_id": "openai/whisper-tiny", "audio_model_revision": "a" * 40}
    config |= {"text_model_id": "HuggingFaceTB/SmolLM2-135M", "text_model_revision": "b" * 40}
    path.write_text(json.dumps(config))
    card = ModelCard.load(write_card(model_folder, BuildOptions(measure=False), CardOptions("acme/tiny")))
    assert card.data.base_model == ["openai/whisper-tiny", "HuggingFaceTB/SmolLM2-135M"]
    assert card.data.to_dict()["base_model_relation"] == "finetune"
    assert f"at `{'a' * 10}`" in card.text
    for audio, sentence in (
        ("openai/whisper-tiny", "at the commits in `config.json`"),
        ("weights/of/whisper", "set `audio_model_id` and"),
    ):
        path.write_text(json.dumps({**config, "checkpoint_form": "adapter", "audio_model_id": audio}))
        assert (
            sentence
            in ModelCard.load(write_card(model_folder, BuildOptions(measure=False), CardOptions("acme/tiny"))).text
        )


def test_every_result_is_that_of_the_file(card: ModelCard, model_folder: Path) -> None:
    metrics = json.loads((model_folder / "evaluation" / "metrics.json").read_text())
    data = card.data
    assert isinstance(data, ModelCardData) and data.eval_results is not None
    index = data.eval_results
    assert {(result.dataset_config, result.metric_type) for result in index} == {
        (language, metric) for language in ("da", "nl") for metric in ("wer", "cer")
    }
    for result in index:
        rate = metrics["by_language"][result.dataset_config][result.metric_type]
        assert result.metric_value == round(100 * rate, 2), "the Hub's models write per cent"
    results = yaml.safe_load((model_folder / ".eval_results" / "slam-asr.yaml").read_text())
    assert results[0]["dataset"] == {"id": "fsicoli/common_voice_22_0", "task_id": "default"}
    assert results[0]["value"] == round(100 * metrics["wer"], 2)
    for figures in (metrics, *metrics["by_language"].values()):
        low, high = (f"{100 * bound:.1f}" for bound in figures["wer_ci"])
        assert f"{100 * figures['wer']:.1f} % [{low}, {high}]" in card.text
        counts = " | ".join(str(figures[name]) for name in ("substitutions", "deletions", "insertions"))
        assert f"| {counts} |" in card.text
    assert "evaluation/metrics.json" in card.text
    study = json.loads((model_folder / "results.json").read_text())
    baseline = next(row for row in study if row["language"] == "all" and not row["lora"])
    change = f"{100 * (metrics['wer'] / baseline['wer'] - 1):+.1f} %"
    assert change in card.text


def test_the_baseline_is_of_the_same_base_models_and_seed(model_folder: Path) -> None:
    path, recipe = model_folder / "results.json", model_folder / "recipe.yaml"
    recipe.write_text(f"{recipe.read_text()}seed: 7\n")
    study = json.loads(path.read_text())
    own = [row for row in study if not row["lora"]]

    def shown(rows: list[dict[str, object]]) -> list[str]:
        path.write_text(json.dumps(rows))
        return [str(row["baseline"]) for row in result_rows(read_facts(model_folder))]

    def like(**changes: object) -> list[dict[str, object]]:
        """The unpruned rows, without an error, with these changes."""
        counts = {"wer": 0.0, "wer_ci": None, "substitutions": 0, "deletions": 0, "insertions": 0}
        return [{**row, **counts, "hits": row["reference_words"], **changes} for row in own]

    usual, perfect = shown(study), ["0.0 %"] * 3
    assert "" not in usual and usual != perfect
    assert shown([*like(audio_model="openai/whisper-large-v2"), *like(text_model="other/lm"), *study]) == usual
    assert shown([*study, *like(seed=7)]) == perfect, "of two seeds the model's own"
    assert shown([*like(seed=8), *like(audio_model="openai/whisper-large-v2", seed=7)]) == perfect
    assert shown(like(audio_model="openai/whisper-large-v2")) == ["", "", ""]


def test_every_number_of_the_tables_is_in_a_file(card: ModelCard, model_folder: Path) -> None:
    facts = read_facts(model_folder)
    for part in ("encoder", "projector", "language_model", "lora", "total", "total_unpruned"):
        assert f"{facts.parameters[part]:,}" in card.text
    assert "1 of the base encoder's 2 blocks are kept: 0 (counted from 0). Pruned: 1." in card.text
    assert "4.25 hours of speech" in card.text and "6.0 min, 700 steps" in card.text
    assert "about 0.002 kWh, estimated" in card.text
    assert "2 cores of a x86_64 CPU" in card.text
    assert "0.5" not in re.findall(r"\b0\.5\b", card.text), "the training run's own error rate is no result"
    assert (model_folder / "wer_vs_depth.png").read_bytes().startswith(b"\x89PNG") and "wer_vs_depth.png" in card.text
    for name, sha256 in facts.code.items():
        assert f"[{name}]({name}) | `{sha256}`" in card.text
    assert facts.fingerprint in card.text


def test_several_evaluations_are_all_shown(model_folder: Path) -> None:
    from .conftest import write_evaluation

    write_evaluation(model_folder / "evaluation" / "my-radio", model_folder)
    write_evaluation(model_folder / "far-field", model_folder)
    path = model_folder / "evaluation" / "my-radio" / "metrics.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "dataset": {"name": "my-radio", "split": "test"}}))
    text = ModelCard.load(write_card(model_folder, BuildOptions(measure=False), CardOptions("acme/tiny"))).text
    for name in ("evaluation", "evaluation/my-radio", "far-field"):
        assert f"[{name}/metrics.json]({name}/metrics.json)" in text
    assert "| my-radio test |" in text


def test_lora_is_told_with_its_settings_and_counted_as_trained_when_it_is_merged(model_folder: Path) -> None:
    options = BuildOptions(measure=False), CardOptions("acme/tiny")
    text = write_card(model_folder, *options).read_text()
    trained = read_facts(model_folder).parameters["trainable"]
    assert f"| trained | {trained:,} |" in text
    assert (
        "LoRA on the language model: rank 4, alpha 8, dropout" in text and "`q_proj`" in text and "kept apart" in text
    )
    config = {**json.loads((model_folder / "config.json").read_text()), "lora": None}  # as after a merge
    (model_folder / "config.json").write_text(json.dumps(config))
    text = write_card(model_folder, *options).read_text()
    assert "| trained | not recorded |" in text and "merged into the weights" in text
    record = json.loads((model_folder / "metrics.json").read_text())
    (model_folder / "metrics.json").write_text(json.dumps({**record, "trainable_params": 4321}))
    text = write_card(model_folder, *options).read_text()
    assert "| trained | 4,321 |" in text and "rank 4, alpha 8, dropout 0.1" in text


def test_the_plot_of_depth_tells_healed_systems_and_other_llms_apart(tmp_path: Path) -> None:
    def row(depth: int, wer: float, **more: Any) -> Any:
        return {"language": "en", "audio_model": "a", "text_model": "t", "encoder_layers": depth, "lora": True,
                "wer": wer, "wer_ci": [wer - 0.01, wer + 0.01], **more}  # fmt: skip

    plain = [row(4, 0.5), row(6, 0.3)]
    alone = plot_depth(plain, tmp_path / "plain.svg")
    both = plot_depth([*plain, row(4, 0.4, healing="encoder")], tmp_path / "healed.svg")
    llms = plot_depth([*plain, row(4, 0.4, text_model="other")], tmp_path / "llms.svg")
    pictures = [path.read_text(encoding="utf-8") for path in (alone, both, llms) if path is not None]
    assert "encoder healed" not in pictures[0] and "encoder healed" in pictures[1] and "other" in pictures[2]


def test_the_same_folder_gives_the_same_card(model_folder: Path) -> None:
    options = BuildOptions(measure=False), CardOptions("acme/tiny")
    first = write_card(model_folder, *options).read_bytes()
    plot = (model_folder / "wer_vs_depth.png").read_bytes()
    (model_folder / "wer_vs_depth.png").unlink()
    assert write_card(model_folder, *options).read_bytes() == first
    assert (model_folder / "wer_vs_depth.png").read_bytes() == plot


def test_without_results_the_card_says_so(model_folder: Path) -> None:
    for path in (*model_folder.glob("evaluation/*"), *model_folder.glob("*.json")):
        if path.name in ("metrics.json", "predictions.jsonl", "results.json"):
            path.unlink()
    (model_folder / "recipe.yaml").unlink()
    text = ModelCard.load(write_card(model_folder, BuildOptions(measure=False), CardOptions("acme/tiny"))).text
    assert "Not evaluated" in text and "not recorded" in text and "not measured" in text


def test_limits_are_measured_on_these_weights_and_used_for_no_others(model_folder: Path) -> None:
    text = write_card(model_folder, BuildOptions(), CardOptions("acme/tiny")).read_text()
    limits = json.loads((model_folder / "limits.json").read_text())
    assert limits["model_fingerprint"] == read_facts(model_folder).fingerprint
    assert f"{limits['batch']['same_transcripts']} had the same transcript" in text
    (model_folder / "limits.json").write_text(json.dumps({**limits, "model_fingerprint": "0" * 64}))
    assert read_facts(model_folder).limits == {}


def test_the_card_shows_the_examples_that_are_proven(card: ModelCard) -> None:
    found = snippets("acme/tiny")
    assert len(found) == 2 and all(f"```python\n{snippet}\n```" in card.text for snippet in found)
    assert all('"acme/tiny"' in snippet and "trust_remote_code=True" in snippet for snippet in found)
    for snippet in snippets('a"); import os #', "v1\n"):
        tree = ast.parse(snippet)
        assert [node for node in ast.walk(tree) if isinstance(node, ast.Import)] == [], "a name is never code"


HOSTILE = "x`y|</td>[a](b)\n```python\nimport os\n```\n# Title\n<!-- end of user text -->"


def test_no_text_of_a_file_becomes_markdown_of_the_card(model_folder: Path) -> None:
    recipe = {"audio_model": HOSTILE, "text_model": HOSTILE, "lora": {"r": 4}}
    recipe["train"] = [{"dataset": HOSTILE, "language": HOSTILE}]
    (model_folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    results = json.loads((model_folder / "results.json").read_text())
    (model_folder / "results.json").write_text(json.dumps([{**row, "name": HOSTILE} for row in results]))
    path = model_folder / "evaluation" / "metrics.json"
    metrics = {**json.loads(path.read_text()), "normalizer": HOSTILE, "dataset": {"name": HOSTILE, "split": HOSTILE}}
    path.write_text(json.dumps({**metrics, "hardware": {"device": HOSTILE, "gpus": 1}}))
    path = model_folder / "config.json"
    config = json.loads(path.read_text()) | {"prompt": HOSTILE, "audio_model_id": HOSTILE, "text_model_id": HOSTILE}
    path.write_text(json.dumps(config))
    options = BuildOptions(measure=False, licences={"one_line": HOSTILE})
    text = ModelCard.load(write_card(model_folder, options, CardOptions("acme/tiny"))).text
    assert len(fences(text)) == 2 * 2 + 2, "two examples and the citation"
    assert "import os" not in [line.strip() for line in text.splitlines()] and "\n# Title" not in text
    assert text.count("<!-- end of user text -->") == 2
    assert "</td>" not in re.sub(r"`[^`\n]*`", "", text), "outside of code it would be HTML"


def test_a_block_of_code_that_is_not_closed_is_told() -> None:
    with pytest.raises(ConflictError, match="does not close"):
        extract(wrap("introduction", "```python\nimport os"), "the card")


@pytest.mark.parametrize(
    "header",
    ["a: &a [x]\nb: *a", "model_name: x\neval_results: 3\n1: 2\ntags: [[1]]", "a: [", "x: " + "y" * 200_000, "- a"],
    ids=["alias", "arguments", "broken", "long", "list"],
)
def test_hostile_metadata_of_a_card_on_the_hub(header: str) -> None:
    try:
        assert foreign_metadata(f"---\n{header}\n---\n# T\n", "the card") == {}
    except ConflictError as error:
        assert "cannot be read" in str(error) and "\n" not in str(error)


def test_the_users_text_and_foreign_metadata_survive(model_folder: Path) -> None:
    options = BuildOptions(measure=False), CardOptions("acme/tiny")
    path = write_card(model_folder, *options)
    text = path.read_text().replace(
        "(as of none) -->\n", "(as of none) -->\nMade for the *library* {{ not a template }}.\n", 1
    )
    path.write_text(
        text.replace("---\n", "---\nthumbnail: me.png\n", 1).replace("- whisper", "- whisper\n- bird-songs")
    )
    again = ModelCard.load(write_card(model_folder, *options))
    assert "Made for the *library* {{ not a template }}." in again.text
    assert again.data.to_dict()["thumbnail"] == "me.png" and "bird-songs" in again.data.tags


def test_cards_are_made_anew_from_the_facts_that_they_keep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(examples()[0], tmp_path / "one")
    (tmp_path / "one" / CARD).write_text("an older template's card")
    monkeypatch.setattr(example, "ROOT", tmp_path)
    monkeypatch.setattr(sys, "argv", ["example"])
    example.main()
    assert (tmp_path / "one" / CARD).read_text(encoding="utf-8") == render_example(tmp_path / "one")


@pytest.mark.parametrize("folder", examples(), ids=lambda folder: folder.name)
def test_an_example_is_what_the_template_makes_of_its_facts(folder: Path) -> None:
    assert (folder / CARD).read_text(encoding="utf-8") == render_example(folder), (
        "run `python -m hub_upload.example` again"
    )
    assert not list(find_paths((folder / "facts.json").read_text(encoding="utf-8"))), "no machine's own paths"
    facts = read_example(folder)
    assert facts.trained_parameters == facts.training["trainable_params"] > facts.parameters["projector"]
    assert f"| trained | {facts.trained_parameters:,} |" in render_example(folder)


def test_all_texts_of_the_table_are_in_the_template(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = examples()[0]
    facts = read_example(folder)
    marks = {name: f"Here stands what is said of {name}." for name in TEXTS}
    for name, text in list(TEXTS.items()):
        marked: str | list[str] = [marks[name]] if isinstance(text(facts), list) else marks[name]
        monkeypatch.setitem(TEXTS, name, lambda _, marked=marked: marked)
    card = render_example(folder)
    for name, mark in marks.items():
        assert card.count(mark) == 1, name


def test_bad_folders(tmp_path: Path) -> None:
    for folder, said in ((tmp_path / "missing", "is no folder"), (tmp_path, "no config.json")):
        with pytest.raises(UserError, match=said):
            write_card(folder, BuildOptions(), CardOptions("acme/tiny"))
    (tmp_path / "config.json").write_text('{"model_type": "whisper"}')
    with pytest.raises(UserError, match="'whisper'"):
        write_card(tmp_path, BuildOptions(), CardOptions("acme/tiny"))


def test_spans() -> None:
    assert spans([0, 1, 2, 5, 7, 8]) == "0-2, 5, 7-8"


# ---------------------------------------------------------------- user text


def section(text: str, as_of: str | None = None) -> UserText:
    return UserText(text, as_of)


@pytest.mark.parametrize(
    ("here", "there", "expected"),
    [
        (section(""), section(""), ""),
        (section("mine"), section(""), "mine"),
        (section(""), section("theirs", "none"), "theirs"),
        (section("newer"), section("old", digest("old")), "newer"),
        (section("old"), section("edited on the Hub", digest("old")), "edited on the Hub"),
    ],
)
def test_merging_user_text(here: UserText, there: UserText, expected: str) -> None:
    assert merge({"notes": here}, {"notes": there})["notes"] == expected


def test_text_edited_on_both_sides_is_a_conflict_until_the_user_decides() -> None:
    here, there = {"notes": section("mine")}, {"notes": section("theirs", digest("old"))}
    with pytest.raises(ConflictError, match="--user-text"):
        merge(here, there)
    assert merge(here, there, "local")["notes"] == "mine"
    assert merge(here, there, "hub")["notes"] == "theirs"


def test_wrap_and_extract_are_inverse_and_damage_is_noticed() -> None:
    card = f"---\nlicense: mit\n---\n\n# T\n\n{wrap('introduction', 'a --- b')}\n\n{wrap('notes', '')}\n"
    found = extract(card, "the card")
    assert found["introduction"] == UserText("a --- b", digest("a --- b")) and found["notes"].text == ""
    assert not found["introduction"].edited
    with pytest.raises(ConflictError, match="damaged"):
        extract(card.replace("<!-- end of user text -->", "", 1), "the card")


def test_a_card_written_by_hand_is_kept_and_the_trainers_is_not() -> None:
    assert "My own words" in extract("---\nlicense: mit\n---\n# Model\n\nMy own words\n", "it")["notes"].text
    trainers = "<!-- This model card has been generated automatically according to the information the Trainer had access to. -->"
    assert extract(f"{trainers}\n# tiny\n", "it") == {}
    assert user_text.SECTIONS == ("introduction", "notes")


# ---------------------------------------------------------------- licence


@pytest.mark.parametrize(
    ("licences", "expected"),
    [
        (["apache-2.0", "apache-2.0", "cc0-1.0"], "apache-2.0"),
        (["mit", "apache-2.0", "cc-by-4.0"], "cc-by-4.0"),
        (["apache-2.0", "cc-by-nc-4.0"], "cc-by-nc-4.0"),
        (["apache-2.0", "llama3.2", "cc0-1.0"], "llama3.2"),
        (["apache-2.0", "cc-by-sa-4.0"], "cc-by-sa-4.0"),
        (["apache-2.0", "llama3.2", "gemma"], "other"),
        (["cc-by-nc-4.0", "cc-by-sa-4.0"], "other"),
        (["apache-2.0", "unknown"], "other"),
        (["other"], "other"),
        ([], "other"),
    ],
)
def test_licence_is_the_strictest_or_other_with_its_parts(licences: list[str], expected: str) -> None:
    derived = derive_licence([Part("data", f"part{index}", licence) for index, licence in enumerate(licences)])
    assert derived.identifier == expected
    assert (derived.name is not None) == (expected == "other")
    assert [part.licence for part in derived.parts] == licences


def test_a_licence_that_asks_for_a_notice_has_it_on_the_card() -> None:
    def parts(*licences: str) -> list[Part]:
        return [Part("data", f"part{index}", licence) for index, licence in enumerate(licences)]

    assert notices(parts("mit", "cc0-1.0")) == []
    assert notices(parts("apache-2.0", "llama3.2", "llama3.2"))[0].startswith("Built with Llama. Llama 3.2 is licensed")
    assert [text.split()[0] for text in notices(parts("llama3", "gemma"))] == ["Gemma", "Built"]
    assert set(NOTICES) <= {licence for _, licence in KNOWN}, (
        "a notice stands under a licence that parts are found to have"
    )
    example = Path("model_cards/whisper-base-gemma-3-270m-en/README.md").read_text(encoding="utf-8")
    assert notices(parts("gemma"))[0] in example


def test_known_licences() -> None:
    assert known_licence("openai/whisper-small") == "apache-2.0"
    assert known_licence("Qwen/Qwen2.5-3B") == "qwen-research"
    assert known_licence("Qwen/Qwen2.5-0.5B-Instruct") == "apache-2.0"
    assert known_licence("embedded") == known_licence("embedded-lm") == "apache-2.0"
    for unread in (
        "somebody/something",
        "embedded-by-jane",
        "slam-asr/x",
        "openai/whisper-next",
        "Qwen/Qwen2.5-Coder-3B",
        "google/gemma-9x",
    ):
        assert known_licence(unread) == "unknown", "a licence that nobody has read is not stamped"
    assert known_licence("openai/whisper-large-v3-turbo") == "mit"
    assert readable_identifier("cc0-1.0") == "cc0-1.0"
    assert readable_identifier(["mit"]) is readable_identifier("mit\n# Title") is None
