"""The Open ASR Leaderboard's harness: its calls, made by a script that knows nothing of this project."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modeling_slam_asr.windows_slam_asr import WINDOW_SECONDS, cut_windows
from tests.conftest import SAMPLING_RATE, WORDS, speak

# The public calls of `transformers/run_eval.py` for a model whose processor has `apply_transcription_request`.
# The harness itself trusts no remote code; who adapts it for such models adds `trust_remote_code=True`.
CALLS = """\
import json, sys
import numpy as np, torch
from transformers import MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING, AutoConfig, AutoModelForSpeechSeq2Seq, AutoProcessor

torch.set_num_threads(1)
place, waves, dtype, options = *sys.argv[1:4], json.loads(sys.argv[4])
dtype = getattr(torch, dtype)
if not options:
    assert type(AutoConfig.from_pretrained(place, revision=None)) in MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING
model = AutoModelForSpeechSeq2Seq.from_pretrained(
    place, dtype=dtype, revision=None, attn_implementation="sdpa", **options
)
model.to("cpu")
model.eval()
processor = AutoProcessor.from_pretrained(place, revision=None, **options)
assert processor.feature_extractor.sampling_rate == 16_000
assert model.can_generate() and not getattr(model.generation_config, "is_multilingual", False)
if hasattr(model.generation_config, "suppress_tokens"):
    model.generation_config.suppress_tokens = []
if hasattr(model.generation_config, "begin_suppress_tokens"):
    model.generation_config.begin_suppress_tokens = []
texts = []
with np.load(waves) as file:
    recordings = [file[name] for name in file.files]
for start, shortest in ((0, 12), (0, None), (2, None)):  # warm-up first, the last batch smaller
    inputs = processor.apply_transcription_request(recordings[start : start + 2])
    length = inputs["input_ids"].shape[1]
    inputs = inputs.to("cpu", dtype=dtype)
    tokens = model.generate(**inputs, max_new_tokens=12, min_new_tokens=shortest)
    texts.append(processor.decode(tokens[:, length:], skip_special_tokens=True))
    assert texts[-1] == processor.batch_decode(tokens[:, length:], skip_special_tokens=True)
print(json.dumps({"texts": texts[1] + texts[2], "class": type(model).__qualname__, "module": type(model).__module__}))
"""
ALONE = (
    "import runpy, sys; sys.modules['modeling_slam_asr'] = None; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0])"
)


@pytest.fixture(scope="module")
def waves() -> list[np.ndarray]:
    """Three recordings of different lengths."""
    rng = np.random.default_rng(5)
    return [speak([str(word) for word in rng.choice(list(WORDS), size)], seed=size) for size in (3, 9, 5)]


@pytest.fixture(scope="module")
def published(
    make_tiny_model: Callable[..., Any], tiny_processor: Any, tmp_path_factory: pytest.TempPathFactory
) -> Any:
    """A function that saves the tiny model as it would be published."""

    def save(name: str, **generation: Any) -> Path:
        folder = tmp_path_factory.mktemp("published") / name
        model = make_tiny_model()
        for key, value in generation.items():
            setattr(model.generation_config, key, value)
        model.save_pretrained(folder)
        tiny_processor.save_pretrained(folder)
        return folder

    return save


def run_calls(
    tmp_path: Path, launcher: list[str], place: Path, waves: list[np.ndarray], options: dict[str, Any],
    dtype: str = "float32",
) -> dict[str, Any]:  # fmt: skip
    """Run `CALLS` in a process of its own."""
    script, file = tmp_path / "run_eval.py", tmp_path / "waves.npz"
    script.write_text(CALLS, encoding="utf-8")
    np.savez(file, *waves)
    done = subprocess.run(
        [sys.executable, *launcher, str(script), str(place), str(file), dtype, json.dumps(options)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "HF_HOME": str(tmp_path / "hf"),
             "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    said: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return said


def pipeline_texts(place: Path, waves: list[np.ndarray], dtype: str = "float32") -> list[str]:
    """What the model's own pipeline says."""
    from transformers import pipeline

    pipe: Any = pipeline("automatic-speech-recognition", model=str(place), dtype=dtype, device="cpu")
    return [pipe(wave, max_new_tokens=12)["text"] for wave in waves]


def test_the_harness_runs_a_published_model(tmp_path: Path, published: Any, waves: list[np.ndarray]) -> None:
    """Through `leaderboard_harness`, with a recording longer than the encoder's 30 s."""
    long = speak(["fire", "fem", "don't"] * 44, seed=9)
    windows = [window.samples for window in cut_windows([long], SAMPLING_RATE, WINDOW_SECONDS, 0.0, whole_seconds=30.0)]
    assert len(windows) == 2
    place = published("model")
    launcher = ["-m", "benchmarks.leaderboard_harness"]
    said = run_calls(tmp_path, launcher, place, [waves[0], long, waves[1]], {})
    first, *pieces, last = pipeline_texts(place, [waves[0], *windows, waves[1]])
    assert said["texts"] == [first, " ".join(pieces), last]
    assert all([first, *pieces, last])
    assert said["class"] == "HarnessModel"


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_harness_that_trusts_remote_code(tmp_path: Path, published: Any, waves: list[np.ndarray], dtype: str) -> None:
    """The repository's own code, with `prompt_columns` in its generation configuration; the pipeline reads it alike."""
    place = published("model", prompt_columns=True)
    said = run_calls(tmp_path, ["-c", ALONE], place, waves, {"trust_remote_code": True}, dtype)
    assert said["texts"] == pipeline_texts(place, waves, dtype)
    assert all(said["texts"])
    assert said["module"].startswith("transformers_modules.")


def test_usage(capsys: pytest.CaptureFixture[str]) -> None:
    from benchmarks.leaderboard_harness import main

    assert main([]) == main(["no/such/run_eval.py"]) == 2
    assert "usage: python -m benchmarks.leaderboard_harness" in capsys.readouterr().err
