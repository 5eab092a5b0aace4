"""Engines behind one pipeline: the same transcripts, and a refusal by name of what one cannot do."""

import importlib.util
import subprocess
import sys
from collections.abc import Collection, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM

from modeling_slam_asr.transcripts_slam_asr import align_tokens, read_transcript
from tests.conftest import speak
from trainers.cli import main
from trainers.engines import ModelSource, check_decoding, load_pipeline, parameters_of
from trainers.errors import UserError
from trainers.inference.torch_engine import pipeline_of
from trainers.serving.exported import ExportedPipeline, Generated, Request, align_known, cut_loop, is_done
from trainers.serving.onnx_audio import OnnxAudio

RATE = 16_000
HAS_LLAMA_CPP = importlib.util.find_spec("llama_cpp") is not None
needs_llama_cpp = pytest.mark.skipif(not HAS_LLAMA_CPP, reason="the extra `llama-cpp` is not installed")


class Transformers:
    """The smallest engine: the exported LLM by transformers, all of the request again for every token."""

    name, precision, joins = "transformers", "float32", True

    def __init__(self, exported: Path) -> None:
        self.llm = AutoModelForCausalLM.from_pretrained(exported / "llm").eval()

    @torch.no_grad()
    def __call__(self, requests: Sequence[Request], ends: Collection[int], log_probs: bool) -> list[Generated]:
        embed, answers = self.llm.get_input_embeddings(), []
        for request in requests:
            written = Generated([], [])
            parts = [torch.tensor(request.before, dtype=torch.long), torch.tensor(request.after, dtype=torch.long)]
            start = torch.cat([embed(parts[0]), torch.from_numpy(request.audio), embed(parts[1])])
            while not (written.tokens and is_done(written.tokens, request.limit, ends)):
                row = torch.cat([start, embed(torch.tensor(written.tokens, dtype=torch.long))])
                scores = self.llm(inputs_embeds=row[None]).logits[0, -1].log_softmax(-1)
                written.tokens.append(request.next_token(scores.numpy()))
                written.log_probs.append(float(scores[written.tokens[-1]]))
            answers.append(written)
        return answers


@pytest.fixture(scope="module", params=["transformers", pytest.param("llama_cpp", marks=needs_llama_cpp)])
def pipe(request: pytest.FixtureRequest, exported: Path) -> Iterator[ExportedPipeline]:
    if request.param == "transformers":
        llm: Any = Transformers(exported)
    else:
        from trainers.serving.llama_cpp_engine import LlamaCpp

        llm = LlamaCpp(exported / "llm.f16.gguf", "f16")
    yield ExportedPipeline(exported, OnnxAudio(exported, threads=1), llm)


@pytest.fixture(scope="module")
def torch_pipe(lora_model_dir: Path) -> Any:
    return load_pipeline(lora_model_dir, device="cpu")


def test_a_recording_names_its_own_language(
    pipe: ExportedPipeline, torch_pipe: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    sound = {"array": speak(["to", "tre"]), "sampling_rate": RATE}
    for one in (pipe, torch_pipe):
        monkeypatch.setattr(one.processor, "language_prompt", "{language} {language}")
        prompts = {
            language: [item["ids"] for item in one.preprocess({**sound, "language": language})]
            for language in ("da", "nl", None, 3)
        }
        assert prompts["da"] == [item["ids"] for item in one.preprocess(sound, language="da")] != prompts["nl"]
        assert prompts["da"] == [item["ids"] for item in one.preprocess({**sound, "language": "nl"}, language="da")]
        assert prompts[None] == prompts[3] == [item["ids"] for item in one.preprocess(sound)]
        answers = one([{**sound, "language": "da"}, sound], batch_size=2, max_new_tokens=4)
        assert answers[0] == {**one(sound, language="da", max_new_tokens=4), "language": ["da"]}
        assert answers[1] == one(sound, max_new_tokens=4)


def test_a_loaded_pipeline_says_where_it_came_from(
    pipe: ExportedPipeline, torch_pipe: Any, exported: Path, lora_model_dir: Path
) -> None:
    assert torch_pipe.source == ModelSource(str(lora_model_dir), commit=None)
    assert parameters_of(pipe)["trainable"] == parameters_of(torch_pipe)["trainable"]
    assert pipe.source == ModelSource(str(exported), commit=None)
    assert pipeline_of(torch_pipe.model, torch_pipe.processor).source is None


LONG = ["en", "to", "tre", "fire", "fem"] * 3


def test_transcripts_are_those_of_torch(pipe: ExportedPipeline, torch_pipe: Any) -> None:
    sounds = [speak(["en", "tre", "fem"]), speak(["to"]), speak(["fire"] * 4), np.zeros(RATE, np.float32)]
    wanted = torch_pipe(sounds, batch_size=4)
    assert len({answer["text"] for answer in wanted}) > 2
    assert pipe(sounds, batch_size=4) == wanted
    assert [pipe(sound) for sound in sounds] == wanted
    assert list(pipe((sound for sound in sounds), batch_size=3)) == wanted


def test_joint_decoding_is_that_of_torch(pipe: ExportedPipeline, torch_pipe: Any) -> None:
    sounds = [speak(["en", "tre", "fem"]), speak(["to"]), speak(["fire"] * 4)]
    wanted = torch_pipe(sounds, batch_size=3, ctc_weight=0.6)
    assert wanted != torch_pipe(sounds, batch_size=3)
    assert pipe(sounds, batch_size=3, ctc_weight=0.6) == wanted
    pipe.llm.joins, before = False, pipe.llm.joins
    try:
        with pytest.raises(
            UserError, match=r"ctc_weight=0\.6: the engine .* decodes by the LLM alone\. Give ctc_weight=0"
        ):
            pipe(sounds[0], ctc_weight=0.6)
    finally:
        pipe.llm.joins = before
    with pytest.raises(UserError, match=r"ctc_weight=1\.5 must be from 0 to below 1"):
        pipe(sounds[0], ctc_weight=1.5)


def test_windows_marks_and_rows_are_the_pipeline_s(pipe: ExportedPipeline, torch_pipe: Any, tmp_path: Path) -> None:
    """A recording in windows that overlap, with its confidences and the times of its words."""
    request: dict[str, Any] = {"window_seconds": 2.0, "overlap_seconds": 0.5, "max_new_tokens": 12}
    row = {"array": speak(LONG), "sampling_rate": RATE, "speaker": "a"}
    assert pipe(row, **request) == torch_pipe(row, **request)
    for marks in ({"return_timestamps": True, "return_confidence": "tokens"}, {"return_timestamps": "estimate"}):
        found, wanted = (one(row, **request, **marks) for one in (pipe, torch_pipe))
        assert found.keys() == wanted.keys() and len(found["chunks"]) == len(wanted["chunks"]) > 1
        for ours, theirs in zip(found["chunks"], wanted["chunks"], strict=True):
            assert ours.pop("confidence", 0) == pytest.approx(theirs.pop("confidence", 0), rel=0.05)
            assert ours == theirs
    noise = (0.05 * np.random.default_rng(0).standard_normal(RATE)).astype(np.float32)
    assert pipe(noise, **request)["no_speech"] is True
    broken = tmp_path / "broken.wav"
    broken.write_bytes(b"no sound")
    assert "is not sound that can be decoded" in pipe(str(broken), on_error="return")["error"]


def test_words_have_the_times_of_the_ctc_head(pipe: ExportedPipeline) -> None:
    sound = speak(LONG[:4])
    answer = pipe(sound, return_timestamps="word", max_new_tokens=8)
    assert answer["approximate_timestamps"] is True
    assert " ".join(chunk["text"] for chunk in answer["chunks"]).split() == answer["text"].split()
    times = [chunk["timestamp"] for chunk in answer["chunks"]]
    assert all(0 <= start <= end <= len(sound) / RATE for start, end in times) and times == sorted(times)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_beams": 4}, r"num_beams=4 is not possible: the engine transformers decodes greedily\. Give num_beams=1"),
        ({"generate_kwargs": {"do_sample": True}}, "do_sample=True is not possible"),
        ({"no_such_option": 1}, r"no_such_option=1 is not possible: .* Leave it out"),
        ({"eos_token_id": 7}, "eos_token_id=7 is not possible"),
        ({"return_timestamps": "char"}, "return_timestamps='char' is unknown"),
        ({"batch_size": 0}, "batch_size must be 1 or more"),
    ],
)
def test_what_an_engine_cannot_do_is_refused(exported: Path, options: dict[str, Any], message: str) -> None:
    pipe = ExportedPipeline(exported, OnnxAudio(exported, threads=1), Transformers(exported))
    with pytest.raises(ValueError, match=message):
        pipe(speak(["to"]), **options)


def test_attention_and_the_model_s_own_beams_are_refused(exported: Path) -> None:
    pipe = ExportedPipeline(exported, OnnxAudio(exported, threads=1), Transformers(exported))
    pipe.model.config = pipe.model.config.__class__(**{**vars(pipe.model.config), "projector_ctc": False})
    with pytest.raises(UserError, match="needs the LLM's attention, which the engine transformers does not give"):
        pipe(speak(["to"]), return_timestamps="word")
    pipe.generation = {**pipe.generation, "settings": {"num_beams": 3}}
    with pytest.raises(UserError, match=r"num_beams=3 of the model's own generation settings is not possible"):
        pipe(speak(["to"]))
    with pytest.raises(UserError, match="num_beams=3 of the model's own"):  # said before a server opens
        check_decoding(pipe, {})
    check_decoding(pipe, {"num_beams": 1})
    assert pipe(speak(["to"]), num_beams=1, max_new_tokens=1)["truncated"] is True


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), frames=st.integers(1, 12), count=st.integers(0, 6))
def test_tokens_without_a_ctc_class_lie_between_their_neighbours(seed: int, frames: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    scores = np.log(rng.dirichlet(np.ones(5), size=frames))
    targets = [None if rng.random() < 0.4 else int(target) for target in rng.integers(1, 5, count)]
    known = [target for target in targets if target is not None]
    found = align_known(scores, targets)
    if found is None:
        repeats = sum(one == other for one, other in pairwise(known))
        assert (targets and not known) or len(known) + repeats > frames
        return
    assert (np.diff(found[:, :2].reshape(-1)) >= -1e-9).all()
    assert ((found[:, :2] >= 0) & (found[:, :2] <= frames)).all()
    np.testing.assert_array_equal(
        found[[target is not None for target in targets]], align_tokens(scores, known) if targets else found
    )


@given(period=st.integers(1, 9), before=st.integers(0, 20), copies=st.integers(1, 60))
def test_a_loop_is_cut_where_another_engine_stops(period: int, before: int, copies: int) -> None:
    tokens = [*range(100, 100 + before), *(list(range(period)) * copies)]
    written: list[int] = []
    for token in tokens:
        written.append(token)
        if is_done(written, len(tokens), {-5}):
            break
    kept = tokens[: cut_loop(tokens)]
    assert kept == written
    assert read_transcript(kept, {-5}, None, 10_000).tokens == read_transcript(tokens, {-5}, None, 10_000).tokens


def test_an_engine_that_is_unknown_or_has_no_such_folder(
    lora_model_dir: Path, exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UserError, match=r"engine='tensorflow' is unknown\. Choose one of torch, llama_cpp, vllm"):
        load_pipeline(tmp_path, engine="tensorflow")
    with pytest.raises(UserError, match=r"--dtype q8_0: the engine torch takes float32"):
        load_pipeline(lora_model_dir, dtype="q8_0")
    with pytest.raises(UserError, match=r"is none\. Make one: `slam-asr export .* exported --gguf q8_0`"):
        load_pipeline(lora_model_dir, engine="llama_cpp")
    with pytest.raises(UserError, match=r"has no GGUF file of precision q4_k_m; it has f16, q8_0"):
        load_pipeline(exported, engine="llama_cpp", dtype="q4_k_m")
    for engine in ("llama_cpp", "vllm"):
        with pytest.raises(UserError, match=r"--device cuda: .* Leave it out"):
            load_pipeline(exported, engine=engine, device="cuda")
        with pytest.raises(UserError, match=r"--revision main: .* Export that revision"):
            load_pipeline(exported, engine=engine, revision="main")
    assert main(["transcribe", str(lora_model_dir), __file__, "--engine", "vllm"]) == 2
    assert "The engine vllm reads an export" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("engine", ["llama_cpp", "vllm"])
def test_a_missing_package_is_named(exported: Path, engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from trainers.serving import llama_cpp_engine

    llama_cpp_engine._library.cache_clear()
    monkeypatch.setitem(sys.modules, engine, None)
    with pytest.raises(UserError, match=rf"pip install \"slam-asr\[{engine.replace('_', '-')}\]\""):
        load_pipeline(exported, engine=engine)


@needs_llama_cpp
def test_llama_cpp_needs_no_torch(exported: Path, tmp_path: Path) -> None:
    import soundfile

    soundfile.write(tmp_path / "talk.wav", speak(["en", "to"]), RATE)
    code = f"""
import sys
from trainers.engines import load_pipeline
pipe = load_pipeline({str(exported)!r}, engine="llama_cpp")
answer = pipe({str(tmp_path / "talk.wav")!r}, return_timestamps="word", return_confidence=True)
print(sorted(answer), pipe.llm.precision)
sys.exit("torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "'chunks', 'confidence'" in done.stdout and done.stdout.strip().endswith("q8_0")


@needs_llama_cpp
def test_the_commands_take_an_engine(exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import soundfile

    soundfile.write(tmp_path / "talk.wav", speak(["en", "to"]), RATE)
    arguments = ["--engine", "llama_cpp", "--dtype", "f16"]
    assert main(["transcribe", str(exported), str(tmp_path / "talk.wav"), "--json", *arguments]) == 0
    assert '"chunks"' in capsys.readouterr().out
    (tmp_path / "rows.jsonl").write_text('{"audio": "talk.wav", "text": "en to"}\n')
    out = tmp_path / "scores"
    asked = ["--dataset", str(tmp_path / "rows.jsonl"), "--output-dir", str(out), *arguments]
    assert main(["evaluate", str(exported), *asked]) == 0
    assert '"dtype": "f16"' in (out / "metrics.json").read_text()


def test_what_vllm_is_asked(exported: Path, torch_model: Any) -> None:
    from trainers.serving.language_model import prompt_embeddings
    from trainers.serving.vllm_engine import read_output, sampling_settings, token_embeddings

    audio = np.ones((3, torch_model.get_input_embeddings().weight.shape[1]), np.float32)
    request = Request([5], audio, [9, 40], limit=17)
    found = prompt_embeddings(token_embeddings(exported / "llm", "float32"), request)
    table = torch_model.get_input_embeddings().weight.detach()
    torch.testing.assert_close(found, torch.cat([table[[5]], torch.from_numpy(audio), table[[9, 40]]]))
    asked = sampling_settings(request, [7, 8], True)
    assert (asked["temperature"], asked["max_tokens"], asked["stop_token_ids"], asked["logprobs"]) == (
        0.0,
        17,
        [7, 8],
        0,
    )
    said = [{4: SimpleNamespace(logprob=-0.5)}, {7: SimpleNamespace(logprob=-0.25)}]
    assert read_output([4, 7], said) == Generated([4, 7], [-0.5, -0.25])
    assert len(read_output([3] * 200, None).tokens) == 40
