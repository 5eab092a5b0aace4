"""`slam-asr score` and `slam-asr compare`, run as a user runs them."""

import argparse
import json
from pathlib import Path

import pytest

from trainers.cli import main
from trainers.commands.compare import default_names, find_predictions
from trainers.commands.evaluate import data_name, place_for
from trainers.commands.score import training_word_counts
from trainers.errors import UserError
from trainers.files import write_jsonl
from trainers.results import PredictionRow, read_evaluations

FIXED = Path(__file__).parents[1] / "evaluation" / "data" / "mixed.jsonl"


def write(path: Path, *predictions: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [{"reference": "a b c d", "prediction": p} for p in predictions]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_score_prints_and_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = tmp_path / "train.txt"
    text.write_text("de brandweer wagen\nde koppen\n")
    out = tmp_path / "out"
    arguments = ["score", str(FIXED), "--output-dir", str(out), "--bootstrap", "200", "--training-text", str(text)]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    metrics = json.loads((out / "metrics.json").read_text())
    assert f"WER  {100 * metrics['wer']:.1f} %" in printed and "normalizer by language" in printed
    assert metrics["error_analysis"]["words"]["frequency_source"] == "training texts"
    assert (out / "report.html").is_file()


def test_training_words_are_counted_in_the_way_of_each_row(tmp_path: Path) -> None:
    text = tmp_path / "train.txt"
    text.write_text("Maar hij staat op de straat\nDet er paa en gaard\n")
    rows: list[PredictionRow] = [
        {"id": "1", "reference": "på", "prediction": "", "language": "da"},
        {"id": "2", "reference": "staat", "prediction": "", "language": "nl"},
    ]
    arguments = argparse.Namespace(training_text=[text], language=None, normalizer=None)
    counts = training_word_counts(arguments, rows)
    assert counts is not None
    assert (counts["på"], counts["staat"], counts["hij"], counts["aldrig"]) == (1, 1, 1, 0)


def test_score_one_language_with_the_papers_normalizer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "p.jsonl", "A, b c d!", "a b c")
    assert main(["score", str(path), "--language", "nl", "--normalizer", "paper", "--bootstrap", "50"]) == 0
    printed = capsys.readouterr().out
    assert (
        "0 substitutions, 1 deletions" in printed and "normalizer paper" in printed and "Only 2 utterances" in printed
    )


def test_score_with_the_leaderboards_protocol(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    arguments = ["score", str(FIXED), "--protocol", "open-asr-leaderboard", "--model-id", "me/m", "--dataset-id", "x/y"]
    assert main([*arguments, "--output-dir", str(out), "--bootstrap", "0"]) == 0
    assert "Open ASR Leaderboard protocol: WER" in capsys.readouterr().out
    assert (out / "MODEL_me-m_DATASET_x-y_test.jsonl").is_file()
    assert json.loads((out / "metrics.json").read_text())["leaderboard"]["ignored_utterances"] == 1


def test_audio_next_to_the_file_is_found(tmp_path: Path) -> None:
    path = tmp_path / "data" / "p.jsonl"
    path.parent.mkdir()
    (path.parent / "a.wav").write_bytes(b"RIFF")
    path.write_text(json.dumps({"reference": "a", "prediction": "b", "audio": "a.wav"}))
    assert main(["score", str(path), "--output-dir", str(tmp_path / "out"), "--bootstrap", "0"]) == 0
    assert 'src="../data/a.wav"' in (tmp_path / "out" / "report.html").read_text()


def test_compare_prints_a_verdict_and_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = write(tmp_path / "base" / "predictions.jsonl", *["a x c y"] * 30)
    second = write(tmp_path / "lora" / "predictions.jsonl", *["a b c y"] * 15, *["a b c d"] * 15)
    assert (
        main(["compare", str(first), str(second), "--normalizer", "none", "--output-dir", str(tmp_path / "out")]) == 0
    )
    assert "lora is better: lora minus base is -37.5 points" in capsys.readouterr().out
    comparison = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert comparison["comparisons"][0]["utterances"]["fixed"] == 15
    assert (tmp_path / "out" / "report.md").is_file()


def test_names() -> None:
    assert default_names([Path("x/a.jsonl"), Path("x/b.jsonl")]) == ["a", "b"]
    assert default_names([Path("x/p.jsonl"), Path("y/p.jsonl")]) == ["x", "y"]
    with pytest.raises(ValueError, match="same file is given twice"):
        default_names([Path("x/p.jsonl"), Path("x/p.jsonl")])


def test_compare_takes_folders_and_names_them_by_what_differs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for run, texts in (("base", ["a x c y"] * 20), ("lora", ["a b c d"] * 20)):
        for data in ("test", "other") if run == "base" else ("test",):
            folder = tmp_path / "runs" / run / "evaluation" / data
            predictions = write(folder / "predictions.jsonl", *texts)
            assert main(["score", str(predictions), "--output-dir", str(folder), "--bootstrap", "0"]) == 0
            metrics = json.loads((folder / "metrics.json").read_text())
            (folder / "metrics.json").write_text(json.dumps(metrics | {"model_fingerprint": run}))
    runs = [str(tmp_path / "runs" / run) for run in ("base", "lora")]
    assert [one.name for one in read_evaluations(runs[0])] == ["other", "test"]
    with pytest.raises(UserError, match="Which data set is to be compared is not clear"):
        find_predictions([Path(runs[0]), Path(runs[1])])
    named = str(Path(runs[0]) / "evaluation" / "test")
    out = tmp_path / "out"
    assert main(["compare", named, runs[1], "--normalizer", "none", "--output-dir", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "lora is better: lora minus base is -50.0 points" in printed and f"{out / 'report.html'}" in printed
    page = (out / "report.html").read_text()
    assert (
        "lora is better" in page
        and '<a href="#tests">Tests</a>' in page
        and "http:" not in page
        and "https:" not in page
    )
    with pytest.raises(UserError, match=r"holds no predictions\.jsonl"):
        find_predictions([tmp_path, Path(runs[1])])


def test_compare_takes_the_evaluations_of_a_study_s_runs(tmp_path: Path) -> None:
    """They lie in folders of that very name, and are named as such or by their run."""
    runs = [tmp_path / "runs" / run for run in ("base", "lora")]
    files = [write(run / "evaluation" / "predictions.jsonl", "a b c d") for run in runs]
    assert find_predictions([run / "evaluation" for run in runs]) == [file.parent / file.name for file in files]
    assert find_predictions(runs) == files


def test_results_of_several_data_sets_accumulate(tmp_path: Path) -> None:
    assert data_name({"name": "org/set", "config": "da", "split": "validation"}) == "org_set-da-validation"
    for suffix in ("jsonl", "ndjson.gz", "parquet", "txt"):
        assert data_name({"name": f"test.{suffix}", "split": "test"}) == "test"
    folder = write(tmp_path / "evaluation" / "test" / "predictions.jsonl", "a").parent
    rows = {"1": "to\u2028linjer", "2": "en"}
    stored = [{"id": name, "reference": text, "prediction": ""} for name, text in rows.items()]
    write_jsonl(folder / "predictions.jsonl", stored)
    other = folder.with_name("test-2")
    assert (
        place_for(folder, rows) == place_for(folder, {**rows, "3": "tre"}) == folder
    )  # the same data, or more of them
    assert place_for(folder, {"2": "en"}) == other  # a part (`--limit`) replaces no whole
    assert place_for(folder, {"7": "syv"}) == other
    assert place_for(folder, {"1": "twee", "2": "een"}) == other  # other data with the same ids
    (folder / "predictions.jsonl").write_text("torn {")
    assert place_for(folder, {"7": "syv"}) == folder


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["score", "none.jsonl"], "There is no prediction file none.jsonl"),
        (["score", "{a}", "--normalizer", "ducth"], "There is no normalizer 'ducth'"),
        (["score", "{a}", "--confidence", "95"], "between 0 and 1"),
        (["score", "{a}", "--bootstrap", "-3"], "at least 1 resample, got -3"),
        (["score", "{a}", "--training-text", "none.txt"], "training text none.txt cannot be read"),
        (["evaluate", "no/model", "--dataset", "x", "--normalizer", "ducth"], "There is no normalizer 'ducth'"),
        (["evaluate", "no/model", "--dataset", "x", "--num-beams", "0"], "--num-beams 0: it must be 1 or more"),
        (
            ["evaluate", "no/model", "--dataset", "x", "--ctc-weight", "1"],
            "--ctc-weight 1.0: it must be from 0 to below 1",
        ),
        (["evaluate", "no/model", "--dataset", "x", "--batch-size", "0"], "--batch-size 0: it must be 1 or more"),
        (["evaluate", "no/model", "--dataset", "x", "--resamples", "-5"], "--resamples -5: it must be 0 or more"),
        (["compare", "{a}"], "needs two prediction files, got 1"),
        (["compare", "{a}", "{short}"], "a has 2 rows and short has 1: short lacks 1 id(s)"),
        (["compare", "{a}", "{b}", "--names", "x"], "--names needs 2 different names"),
        (["compare", "{a}", "{b}", "--bootstrap", "0"], "--bootstrap must be at least 1"),
    ],
)
def test_mistakes_are_explained_without_a_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    paths = {
        "a": write(tmp_path / "a.jsonl", "a b", "c"),
        "b": write(tmp_path / "b.jsonl", "a b", "c"),
        "short": write(tmp_path / "short.jsonl", "a b"),
    }
    assert main([argument.format(**paths) for argument in arguments]) == 2
    printed = " ".join(capsys.readouterr().err.split())
    assert message in printed and "Traceback" not in printed


@pytest.mark.parametrize("command", ["score", "compare"])
def test_help_teaches(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    printed = capsys.readouterr().out
    assert "examples:" in printed and f"slam-asr {command} " in printed and "reference" in printed
