"""Evaluation of a data set whose files change between the scan and the transcription."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import soundfile

from modeling_slam_asr import SlamAsrProcessor
from tests.modeling_slam_asr.conftest import stir_lora
from trainers.cli import run_command
from trainers.data.collator import SpeechCollator
from trainers.data.prepare import prepare
from trainers.data.spec import DataSpec
from trainers.errors import UserError
from trainers.inference.evaluate import evaluate, system_figures
from trainers.inference.journal import JOURNAL, open_journal
from trainers.inference.torch_engine import load_pipeline, pipeline_of
from trainers.results import PredictionRow


def test_a_recording_that_has_gone_is_one_damaged_row(
    tiny_model: Any, tiny_processor: Any, tiny_audio_dir: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = tmp_path / "model"
    tiny_model.save_pretrained(model)
    tiny_processor.save_pretrained(model)
    clips = tmp_path / "clips"
    clips.mkdir()
    samples, rate = soundfile.read(next(tiny_audio_dir.rglob("*.wav")))
    for number in range(4):
        soundfile.write(clips / f"{number}.wav", samples, rate)
    manifest = tmp_path / "test.jsonl"
    lines = [
        {"id": str(n), "audio": f"clips/{n}.wav", "text": "ja tak", "language": "da", "age": "teens"} for n in range(4)
    ]
    manifest.write_text("".join(json.dumps(line) + "\n" for line in lines))
    dataset, _ = prepare([DataSpec(dataset=str(manifest), min_duration=0.0)], "test", quiet=True)
    (clips / "2.wav").unlink()
    soundfile.write(clips / "1.wav", [*samples, *samples], rate)  # longer than it was when it was scanned
    pipe = load_pipeline(model, device="cpu")
    short = {"max_new_tokens": 4}
    metrics = evaluate(model, dataset, tmp_path / "out", pipe=pipe, generate_kwargs=short, resamples=0, quiet=True)
    assert metrics["utterances"] == 3 and metrics["damaged_recordings"] == 1
    assert "2 is left out" in caplog.text and "2.wav" in caplog.text
    rows = [json.loads(line) for line in (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()]
    assert [row["id"] for row in rows] == ["0", "1", "3"]
    assert [row["age"] for row in rows] == ["teens"] * 3 and metrics["by_age"]["teens"]["utterances"] == 3
    length = len(samples) / rate
    assert [row["duration"] for row in rows] == pytest.approx([length, 2 * length, length], abs=2e-3)
    assert metrics["audio_seconds"] == pytest.approx(4 * length, abs=2e-3)
    for clip in clips.iterdir():
        clip.unlink()
    with pytest.raises(UserError, match="None of the 4 recordings can be read"):
        evaluate(model, dataset, tmp_path / "none", pipe=pipe, generate_kwargs=short, resamples=0, quiet=True)


def test_parts_and_folders_as_in_a_recipe(
    tiny_model: Any, tiny_processor: Any, tiny_audio_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`evaluate` and `depth` take `audio_root` and `segments` too."""
    tiny_model.save_pretrained(tmp_path / "model")
    tiny_processor.save_pretrained(tmp_path / "model")
    clip = next(tiny_audio_dir.rglob("*.wav"))
    (tmp_path / "test.jsonl").write_text(
        json.dumps({"audio": clip.name, "text": "ja tak", "start": 0.1, "end": 0.7}) + "\n"
    )

    def run(command: str, *options: str) -> int:
        places = ["--dataset", str(tmp_path / "test.jsonl"), "--output-dir", str(tmp_path / command)]
        return run_command(command, [str(tmp_path / "model"), *places, *options])

    def seconds() -> float:
        return json.loads((tmp_path / "evaluate" / "metrics.json").read_text())["audio_seconds"]

    short, here = ["--max-new-tokens", "4", "--resamples", "0"], ["--audio-root", str(clip.parent)]
    assert run("evaluate", *here, *short) == 0
    assert seconds() == pytest.approx(0.6, abs=1e-3)
    assert "metrics.json (rates as fractions: WER " in capsys.readouterr().out
    assert run("evaluate", *here, *short, "--segments", "ignore") == 0
    assert seconds() == pytest.approx(soundfile.info(clip).duration, abs=1e-3)
    assert run("depth", *here, "--no-loss") == 0
    for command in ("evaluate", "depth"):
        assert run(command) == 2
        assert clip.name in capsys.readouterr().err


def test_each_row_is_asked_for_in_its_own_language(
    tiny_model: Any, tiny_whisper_encoder_dir: Path, tiny_llama_dir: Path, tiny_audio_dir: Path, tmp_path: Path
) -> None:
    """A model with a `language_prompt` is asked as the collator asks it in training; a language of the call goes before it."""
    prompted = SlamAsrProcessor.from_base_models(
        str(tiny_whisper_encoder_dir), str(tiny_llama_dir), language_prompt="Write down the {language} speech.\n"
    )
    plain = SlamAsrProcessor.from_base_models(str(tiny_whisper_encoder_dir), str(tiny_llama_dir))
    clips = sorted((tiny_audio_dir / "test").glob("*.wav"))
    manifest = tmp_path / "test.jsonl"
    spoken = [(clips[0], "da"), (clips[1], "nl"), (clips[2], None)]
    lines = [{"audio": str(clip), "text": "ja tak", "language": language} for clip, language in spoken]
    manifest.write_text("".join(json.dumps(line) + "\n" for line in lines))
    dataset, _ = prepare([DataSpec(dataset=str(manifest), min_duration=0.0)], "test", quiet=True)

    def asked(processor: Any, **options: Any) -> set[str]:
        """The prompts that reach the model."""
        pipe, prompts = pipeline_of(tiny_model, processor, "cpu"), []
        forward = pipe.forward

        def noted(inputs: dict[str, Any], **rest: Any) -> Any:
            prompts.extend(window["ids"] for window in inputs["windows"])
            return forward(inputs, **rest)

        pipe.forward = noted
        evaluate(
            "tiny", dataset, tmp_path / "out", pipe=pipe, generate_kwargs={"max_new_tokens": 2}, resamples=0, quiet=True, **options
        )  # fmt: skip
        return set(processor.batch_decode(prompts))

    def trained(processor: Any, **changes: Any) -> set[str]:
        collate = SpeechCollator(processor, for_generation=True)
        rows = [collate([{**row, **changes}])["prompt_input_ids"][0] for row in dataset]
        return set(processor.batch_decode(rows))

    assert asked(prompted) == trained(prompted) == {
        "Write down the Danish speech.", "Write down the Dutch speech.", "Transcribe speech to text.",
    }  # fmt: skip
    rows = [json.loads(line) for line in (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()]
    assert [row.get("language") for row in rows] == ["da", "nl", None]
    assert asked(prompted, language="en") == trained(prompted, language="en") == {"Write down the English speech."}
    assert asked(plain) == trained(plain) == {"Transcribe speech to text."}
    # The leaderboard's protocol tells the model no language.
    assert asked(prompted, leaderboard=True) == {"Transcribe speech to text."}


def test_lora_is_merged_for_speed_and_counted_as_saved(
    make_tiny_model: Callable[..., Any], tiny_processor: Any, tiny_audio_dir: Path, tmp_path: Path
) -> None:
    lora = {"r": 4, "target_modules": ["q_proj", "v_proj"]}
    model = make_tiny_model(lora=lora, encoder_lora=lora).eval()
    stir_lora(model.language_model)
    stir_lora(model.audio_encoder)
    model.save_pretrained(tmp_path)
    tiny_processor.save_pretrained(tmp_path)
    merged, apart = load_pipeline(tmp_path, device="cpu"), load_pipeline(tmp_path, device="cpu", merge_lora=False)
    assert merged.model.config.lora is None and apart.model.config.lora == model.config.lora
    assert not any("lora_" in name for name, _ in merged.model.named_parameters())
    sounds = sorted(str(path) for path in tiny_audio_dir.rglob("*.wav"))[:3]
    answers = apart(sounds, max_new_tokens=6)
    assert merged(sounds, max_new_tokens=6) == answers
    assert pipeline_of(make_tiny_model().eval(), tiny_processor)(sounds, max_new_tokens=6) != answers  # LoRA counts
    counts = model.parameter_report()
    for pipe in (merged, apart, pipeline_of(model, tiny_processor)):
        figures = system_figures(pipe)
        assert (figures["total_params"], figures["trainable_params"]) == (counts["total"], counts["trainable"])


def test_a_journal_takes_texts_in_which_unicode_ends_a_line(tmp_path: Path) -> None:
    texts = ["one\u2028two", "three"]
    with pytest.raises(KeyboardInterrupt), open_journal(tmp_path, "key") as journal:
        for position, text in enumerate(texts):
            journal.add(position, PredictionRow(reference=text, prediction=text))
        raise KeyboardInterrupt
    with open_journal(tmp_path, "key") as journal:
        assert [row["reference"] for row in journal.rows.values()] == texts


def test_an_interrupted_evaluation_goes_on(
    tiny_model: Any, tiny_processor: Any, tiny_audio_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_model.save_pretrained(tmp_path / "model")
    tiny_processor.save_pretrained(tmp_path / "model")
    clips = sorted(tiny_audio_dir.rglob("*.wav"))
    manifest = tmp_path / "test.jsonl"
    lines = [{"id": str(n), "audio": str(clips[n % len(clips)]), "text": "ja tak"} for n in range(6)]
    manifest.write_text("".join(json.dumps(line) + "\n" for line in lines))
    dataset, _ = prepare([DataSpec(dataset=str(manifest), min_duration=0.0)], "test", quiet=True)
    pipe = load_pipeline(tmp_path / "model", device="cpu")
    settings: dict[str, Any] = {"batch_size": 2, "generate_kwargs": {"max_new_tokens": 4}, "resamples": 0}
    whole = evaluate(tmp_path / "model", dataset, tmp_path / "whole", pipe=pipe, **settings)
    assert "going on" not in capsys.readouterr().out
    out, stopped = tmp_path / "out", Stopped(pipe, 3)
    with pytest.raises(KeyboardInterrupt):
        evaluate(tmp_path / "model", dataset, out, pipe=stopped, **settings)
    with (out / JOURNAL).open("a") as file:
        file.write('{"position": 5, "ro')  # cut short
    with pytest.raises(KeyboardInterrupt):
        evaluate(tmp_path / "model", dataset, out, pipe=Stopped(pipe, 1), **settings)
    resumed = Stopped(pipe, 6)
    capsys.readouterr()
    metrics = evaluate(tmp_path / "model", dataset, out, pipe=resumed, **settings)
    assert "going on after the 4 utterances" in capsys.readouterr().out and resumed.answered == 2
    assert (out / "predictions.jsonl").read_text() == (tmp_path / "whole" / "predictions.jsonl").read_text()
    assert metrics["wer"] == whole["wer"] and metrics["audio_seconds"] == pytest.approx(
        whole["audio_seconds"], abs=0.01
    )
    assert metrics["eval_rtfx"] > 0 and not (out / JOURNAL).exists()

    with pytest.raises(KeyboardInterrupt):
        evaluate(tmp_path / "model", dataset, out, pipe=Stopped(pipe, 2), **settings)
    other = Stopped(pipe, 6)
    evaluate(tmp_path / "model", dataset, out, pipe=other, **{**settings, "generate_kwargs": {"max_new_tokens": 3}})
    assert other.answered == 6  # with other settings nothing is gone on with


class Stopped:
    """A pipeline that is interrupted, as by Ctrl-C, when it has answered so many recordings of a data set."""

    def __init__(self, pipe: Any, after: int) -> None:
        self.pipe, self.after, self.answered = pipe, after, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.pipe, name)

    def __call__(self, inputs: Any, **options: Any) -> Any:
        return self.pipe(inputs, **options) if isinstance(inputs, dict) else self.answers(inputs, options)

    def answers(self, inputs: Any, options: dict[str, Any]) -> Iterator[Any]:
        for answer in self.pipe(inputs, **options):
            if self.answered == self.after:
                raise KeyboardInterrupt
            self.answered += 1
            yield answer
