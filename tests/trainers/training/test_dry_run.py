"""What a dry run finds in the data and measures."""

import json
from pathlib import Path
from typing import Any

import pytest
from datasets import Audio, Dataset

from trainers.cli import main
from trainers.data.prepare import prepare
from trainers.data.spec import DataSpec
from trainers.errors import UserError
from trainers.recipe import from_dict
from trainers.training.data_checks import check_data
from trainers.training.dry_run import describe, plan_run, positions_a_second
from trainers.training.run import TrainingRun


@pytest.fixture
def manifests(tiny_audio_dir: Path, tmp_path: Path) -> dict[str, Path]:
    """Manifests of train and validation: one recording is in both (as another file), one transcript is far too long."""
    rows = [
        json.loads(line)
        for line in (tiny_audio_dir / "train" / "manifest.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    for row in rows:
        row["audio"] = str(tiny_audio_dir / "train" / row["audio"])
    copy = tmp_path / "copy.wav"
    copy.write_bytes(Path(rows[0]["audio"]).read_bytes())
    rows[3]["text"] = "en to tre fire fem " * 30
    parts = {"train": rows[:12], "validation": [*rows[12:], {**rows[0], "audio": str(copy), "id": "copy"}]}
    for role, own in parts.items():
        (tmp_path / f"{role}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in own), encoding="utf-8")
    return {role: tmp_path / f"{role}.jsonl" for role in parts}


def test_overlap_speakers_rates_and_transcripts(manifests: dict[str, Path]) -> None:
    datasets = {
        role: prepare([DataSpec(dataset=str(path), min_duration=0.1)], role, quiet=True)[0]
        for role, path in manifests.items()
    }
    checks = check_data(datasets)
    assert checks.shared_recordings == {"train and validation": ["copy"]}
    assert checks.shared_speakers == {"train and validation": ["speaker0", "speaker1", "speaker2"]}
    assert checks.outliers[0][:2] == ("train", "train-03.wav")
    assert len(checks.transcripts) == 10
    source, trained = checks.transcripts[0]
    assert source.endswith(".") and trained == source.lower().rstrip(".")
    text = "\n".join(checks.lines())
    assert "1 recordings are in train and validation: copy" in text and f"{trained}   <- {source}" in text


def test_a_run_tells_what_its_sets_share(
    manifests: dict[str, Path], tiny_recipe_values: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As Common Voice's `validated`, which holds the test set: nothing but the sound itself shows it."""
    own = {role: {"dataset": str(path), "min_duration": 0.1} for role, path in manifests.items()}
    (tmp_path / "run").mkdir()
    TrainingRun(from_dict({**tiny_recipe_values, **own, "output_dir": str(tmp_path / "run")})).load_data()
    assert "1 recordings are in train and validation: copy. The figures will be too good." in caplog.text


@pytest.mark.parametrize("named", [{}, {"language": "da"}])
def test_a_run_tells_which_sets_name_no_language(
    named: dict[str, str],
    manifests: dict[str, Path],
    tiny_recipe_values: dict[str, Any],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    lines = manifests["validation"].read_text(encoding="utf-8").splitlines()
    rows = [{key: value for key, value in json.loads(line).items() if key != "language"} for line in lines]
    manifests["validation"].write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    own = {role: {"dataset": str(path), "min_duration": 0.1, **named} for role, path in manifests.items()}
    (tmp_path / "run").mkdir()
    values = {**tiny_recipe_values, **own, "normalizer": None, "output_dir": str(tmp_path / "run")}
    run = TrainingRun(from_dict(values))
    run.load_data()
    assert run.datasets is not None
    warning = f"{len(rows)} utterances of the validation data do not say their language"
    assert (warning in caplog.text) == (not named)
    assert (warning in "\n".join(check_data(run.datasets).lines())) == (not named)
    assert warning not in "\n".join(check_data(run.datasets, "paper").lines()), (
        "one normalizer for all needs no language"
    )


def test_a_base_model_that_is_not_there_is_told_before_the_data_are_read(tiny_recipe_values: dict[str, Any]) -> None:
    values = {**tiny_recipe_values, "text_model": "/models/qwem", "train": [{"dataset": "gone.jsonl"}]}
    with pytest.raises(UserError, match=r"text_model='/models/qwem'\): There is no folder '/models/qwem'\."):
        plan_run(from_dict(values))


def test_sounds_without_a_word_have_no_rate() -> None:
    columns = {
        "id": ["a", "b", "long", "hum", "noise"], "text": ["en to", "en to", "en to " * 9, "", ""], "speaker_id": [None] * 5
    }  # fmt: skip
    rows = Dataset.from_dict({**columns, "transcript": columns["text"], "seconds": [1.0] * 5})
    checks = check_data({"train": rows})
    assert [name for _, name, _ in checks.outliers] == ["long"]


def test_what_is_shown_is_said_and_wrong_encodings_are_named() -> None:
    texts = ["", "", "één", "Ã©Ã©n", "caf\ufffd", "Ðßê", "", ""]
    columns = dict.fromkeys(("id", "text", "transcript"), texts)
    rows = Dataset.from_dict({**columns, "speaker_id": [None] * 8, "language": ["nl"] * 8, "seconds": [1.0] * 8})
    checks = check_data({"train": rows})
    assert [text for text, _ in checks.transcripts] == texts[2:6]
    assert "where it differs); 4 utterances have none:" in checks.lines()[0]
    assert checks.garbled == {"train": ["Ã©Ã©n", "caf\ufffd"]}
    assert "2 transcripts of train were once read in a wrong encoding: 'Ã©Ã©n'" in "\n".join(checks.lines())


def test_transcripts_of_the_test_set_in_the_training_data_are_counted() -> None:
    """As sentences of a text file that are spoken: no sound of theirs is in the test set."""
    datasets = {}
    for role, texts in (("train", ["Hun kom kl. 14.", "", "Det regner"]), ("test", ["Det regner!", "Noget andet", ""])):
        columns = dict.fromkeys(("id", "text", "transcript"), texts)
        seconds = [float(len(role))] * len(texts)
        datasets[role] = Dataset.from_dict(
            {**columns, "speaker_id": [None] * len(texts), "language": ["da"] * len(texts), "seconds": seconds}
        )
    checks = check_data(datasets)
    assert checks.shared_texts == {"test": ["det regner"]} and not checks.shared_recordings
    assert "1 transcripts of test are in train too, whoever speaks them: 'det regner'" in "\n".join(checks.lines())


def test_the_plan_measures_the_time(tiny_recipe_values: dict[str, Any], tmp_path: Path) -> None:
    plan = plan_run(from_dict({**tiny_recipe_values, "output_dir": str(tmp_path / "run"), "max_steps": 300}))
    measured = plan["measured"]
    assert measured is not None and measured.seconds_a_step > 0
    assert measured.minutes * 60 >= 300 * measured.seconds_a_step
    assert "minutes here (" in describe(plan)
    assert not (tmp_path / "run").exists()


def test_several_gpus_are_refused_as_by_the_run(
    tiny_recipe_values: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    values = {**tiny_recipe_values, "output_dir": str(tmp_path / "run"), "device": "auto"}
    with pytest.raises(UserError, match=r"CUDA_VISIBLE_DEVICES=0, .*accelerate launch --num_processes 2"):
        plan_run(from_dict(values))


def test_the_minutes_say_that_a_warm_start_is_not_among_them(
    tiny_recipe_values: dict[str, Any], tmp_path: Path
) -> None:
    warm = {"projector": {"hidden_size": 32, "ctc": True, "downsample_rate": 2}, "warm_start": {"epochs": 1}}
    plan = plan_run(from_dict({**tiny_recipe_values, **warm, "output_dir": str(tmp_path / "run")}))
    assert plan["measured"] is not None
    assert "minutes here, without the warm start before (" in describe(plan)


def test_data_that_are_still_on_the_hub(
    tiny_recipe_values: dict[str, Any], tiny_audio_dir: Path, tmp_path: Path
) -> None:
    """They are refused without a look at the network; the copy that the refusal asks for is read."""
    values = {**tiny_recipe_values, "output_dir": str(tmp_path / "run"), "validation": []}
    with pytest.raises(UserError, match=r"cannot look into 'user/speech' .*save_to_disk\(FOLDER\)"):
        plan_run(from_dict({**values, "train": {"dataset": "user/speech"}}))
    clips = sorted((tiny_audio_dir / "train").glob("*.wav"))[:6]
    audio = Dataset.from_dict({"audio": [str(clip) for clip in clips], "text": ["en to"] * 6})
    audio.cast_column("audio", Audio(decode=False)).save_to_disk(tmp_path / "speech")
    plan = plan_run(from_dict({**values, "train": {"dataset": str(tmp_path / "speech"), "min_duration": 0.1}}))
    assert plan["data"]["train"]["utterances"] == 6 and plan["data"]["train"]["known"]


def test_positions_are_counted_as_the_projector_makes_them(tiny_recipe: Any) -> None:
    """A Q-Former gives as many for a short utterance as for a long one."""
    assert positions_a_second(tiny_recipe()) == pytest.approx(10 + 6)
    queries = tiny_recipe(projector={"type": "qformer", "num_queries": 90})
    assert positions_a_second(queries, 4.5) == pytest.approx(20 + 6)
    assert positions_a_second(queries, 9.0) == pytest.approx(10 + 6)


def test_a_studys_plan_gives_hours_memory_and_cost(
    tiny_recipe_values: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "study.yaml"
    study = {
        "name": "tiny",
        "output_dir": str(tmp_path / "study"),
        "run": {**tiny_recipe_values, "max_steps": 400, "test": tiny_recipe_values["validation"]},
        "grid": {"prune_encoder_layers": [0, 1], "lora": [True]},
    }
    path.write_text(json.dumps(study), encoding="utf-8")
    assert main(["study", str(path), "--plan", "--tflops", "0.001", "--price", "3", "run.batch_size=512"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["run", "GPU", "hours", "GiB", "cost"]
    hours, memory, cost = (float(value) for value in lines[1].split()[1:])
    assert hours > 0 and memory > 0 and cost == pytest.approx(3 * hours, abs=0.03)
    assert lines[3].startswith("2 runs in ") and "at 3 an hour" in lines[3]
    assert not (tmp_path / "study").exists()
    assert main(["study", str(path), "--plan", "--price", "0"]) == 2
    assert main(["study", str(path), "--dry-run", "grid.prune_encoder_layers=[1]"]) == 0
    printed = capsys.readouterr().out
    assert "for the runs of its kind" in printed and "minutes here" in printed and "GPU hours" in printed
