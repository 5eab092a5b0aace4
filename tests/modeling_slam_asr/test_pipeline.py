"""The pipeline: batches, streams, data sets, long audio, silence, marks and errors."""

import copy
import importlib.util
import multiprocessing
import pickle
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from torch.utils.data import Dataset
from transformers import GenerationConfig, TextIteratorStreamer, pipeline
from transformers.pipelines.pt_utils import KeyDataset
from transformers.utils import logging as transformers_logging
from transformers.utils.logging import disable_progress_bar, enable_progress_bar, is_progress_bar_enabled

from modeling_slam_asr import SlamAsrProcessor, windows_slam_asr
from modeling_slam_asr.windows_slam_asr import cut_windows, holds_no_word
from tests.modeling_slam_asr.conftest import talk
from trainers.inference.torch_engine import load_pipeline

RATE = 16_000
SHORT = {"max_new_tokens": 8}


@pytest.fixture(scope="module")
def recordings() -> list[np.ndarray]:
    return [talk(seconds, seed=i) for i, seconds in enumerate((1.0, 0.4, 3.0, 0.3, 2.0))]


@pytest.fixture(scope="module")
def expected(pipe: Any, recordings: list[np.ndarray]) -> list[dict[str, Any]]:
    return [pipe(recording, **SHORT) for recording in recordings]


class Rows(Dataset):
    def __init__(self, recordings: list[np.ndarray]) -> None:
        self.rows = [
            {"audio": {"array": r, "sampling_rate": RATE, "path": None}, "id": i} for i, r in enumerate(recordings)
        ]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.rows[index]


@pytest.mark.parametrize("batch_size", [1, 2, 5, 8])
def test_lists(pipe: Any, recordings: list[np.ndarray], expected: list[dict[str, Any]], batch_size: int) -> None:
    assert pipe(recordings, batch_size=batch_size, **SHORT) == expected
    assert pipe(tuple(recordings), batch_size=batch_size, **SHORT) == expected


def test_streams_are_read_as_they_are_used(pipe: Any, recordings: list[np.ndarray], expected: list[Any]) -> None:
    read = 0

    def stream() -> Iterator[np.ndarray]:
        nonlocal read
        for recording in recordings:
            read += 1
            yield recording

    answers = iter(pipe(stream(), batch_size=2, **SHORT))
    assert next(answers) == expected[0]
    assert read <= 3
    assert list(answers) == expected[1:]
    assert list(pipe(iter(recordings), batch_size=2, **SHORT)) == expected
    assert list(pipe(map(np.asarray, recordings), **SHORT)) == expected


def test_torch_data_sets(pipe: Any, recordings: list[np.ndarray], expected: list[dict[str, Any]]) -> None:
    answers = pipe(KeyDataset(Rows(recordings), "audio"), batch_size=2, **SHORT)
    assert len(answers) == len(recordings)
    assert list(answers) == expected
    rows = list(pipe(Rows(recordings), batch_size=3, **SHORT))
    assert rows == [answer | {"id": [i]} for i, answer in enumerate(expected)]


def test_a_worker_process(pipe: Any, recordings: list[np.ndarray], expected: list[dict[str, Any]]) -> None:
    assert pipe(recordings, batch_size=2, num_workers=1, **SHORT) == expected


def test_a_worker_where_processes_are_spawned(
    pipe: Any, recordings: list[np.ndarray], expected: list[dict[str, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    """As on macOS and Windows, where a worker would get generator and model pickled."""
    multiprocessing.set_start_method("spawn", force=True)
    transformers_logging.enable_propagation()
    try:
        for kind in (list, iter):
            assert list(pipe(kind(recordings), batch_size=2, num_workers=2, **SHORT)) == expected
    finally:
        transformers_logging.disable_propagation()
        multiprocessing.set_start_method(None, force=True)
    (record,) = caplog.records
    assert record.getMessage().startswith("num_workers=2 has no effect where processes start by 'spawn'")


def test_hugging_face_data_sets(
    pipe: Any, recordings: list[np.ndarray], expected: list[dict[str, Any]], tmp_path: Path
) -> None:
    from datasets import Audio, Dataset

    paths = []
    for index, recording in enumerate(recordings):
        soundfile.write(tmp_path / f"{index}.wav", recording, RATE, subtype="FLOAT")
        paths.append(str(tmp_path / f"{index}.wav"))
    data = Dataset.from_dict({"audio": paths, "id": list(range(5))}).cast_column("audio", Audio(decode=False))
    with_ids = [answer | {"id": [i]} for i, answer in enumerate(expected)]
    assert list(pipe(data, batch_size=2, **SHORT)) == with_ids
    assert list(pipe(data.to_iterable_dataset(), batch_size=2, **SHORT)) == with_ids
    assert list(pipe(data["audio"], batch_size=2, **SHORT)) == expected
    assert list(pipe(KeyDataset(data, "audio"), batch_size=2, **SHORT)) == expected


def test_torchcodec_decoders(
    pipe: Any, recordings: list[np.ndarray], expected: list[dict[str, Any]], tmp_path: Path
) -> None:
    try:
        from torchcodec.decoders import AudioDecoder
    except (ImportError, OSError, RuntimeError) as error:  # it is there, and its own libraries or FFmpeg's are not
        pytest.skip(f"torchcodec cannot be loaded: {type(error).__name__}")
    from datasets import Audio, Dataset

    paths = [str(tmp_path / f"{index}.wav") for index in range(len(recordings))]
    for path, recording in zip(paths, recordings, strict=True):
        soundfile.write(path, np.stack([recording, recording], axis=1), RATE, subtype="FLOAT")
    assert pipe(AudioDecoder(paths[0]), **SHORT) == expected[0]
    assert pipe([AudioDecoder(path) for path in paths], batch_size=2, **SHORT) == expected
    assert pipe({"audio": AudioDecoder(Path(paths[1]).read_bytes()), "id": 7}, **SHORT) == expected[1] | {"id": [7]}
    data = Dataset.from_dict({"audio": paths}).cast_column("audio", Audio())
    assert list(pipe(data, batch_size=2, **SHORT)) == expected
    assert list(pipe(data.to_iterable_dataset(), batch_size=2, **SHORT)) == expected
    assert list(pipe(KeyDataset(data, "audio"), batch_size=2, **SHORT)) == expected


def test_other_keys_come_back_and_the_input_is_untouched(pipe: Any, recordings: list[np.ndarray]) -> None:
    source = {"array": recordings[0], "sampling_rate": RATE, "path": "x", "speaker": "f1", "text": "reference"}
    before = copy.copy(source)
    answer = pipe(source, **SHORT)
    assert answer["speaker"] == ["f1"]
    assert answer["text"] == pipe(recordings[0], **SHORT)["text"]
    assert source == before


def test_long_audio(pipe: Any, tmp_path: Path) -> None:
    """Stretches with pauses between are windows of their own; a file read in blocks and an array give the same."""
    pause = np.zeros(RATE, dtype=np.float32)
    whole = np.concatenate([part for i in range(4) for part in (talk(16.0, seed=i), pause)])
    answer = pipe(whole, batch_size=3, return_timestamps=True, **SHORT)
    assert [chunk["timestamp"] for chunk in answer["chunks"]] == [
        pytest.approx((start, start + 16.0), abs=0.1) for start in (0.0, 17.0, 34.0, 51.0)
    ]
    assert answer["text"] == " ".join(chunk["text"] for chunk in answer["chunks"])
    soundfile.write(tmp_path / "long.wav", whole, RATE, subtype="FLOAT")
    assert pipe(tmp_path / "long.wav", return_timestamps=True, **SHORT) == answer


def test_windows_are_as_long_as_the_training_utterances(pipe: Any) -> None:
    config = pipe.model.config
    assert config.window_seconds is None
    config.window_seconds = 5.0
    try:
        chunks = pipe(talk(12.0), return_timestamps=True, **SHORT)["chunks"]
        assert len(chunks) >= 2 and all(end - start <= 5.0 for start, end in (c["timestamp"] for c in chunks))
        assert len(pipe(talk(6.2), return_timestamps=True, **SHORT)["chunks"]) == 1  # a quarter more stays whole
        assert len(pipe(talk(12.0), return_timestamps=True, window_seconds=20, **SHORT)["chunks"]) == 1
    finally:
        config.window_seconds = None


def test_windows_of_a_size_that_is_asked_for(pipe: Any) -> None:
    recording = talk(12.0)
    assert len(pipe(recording, return_timestamps=True, **SHORT)["chunks"]) == 1
    for options in ({"window_seconds": 5}, {"chunk_length_s": 5}):
        chunks = pipe(recording, return_timestamps=True, **options, **SHORT)["chunks"]
        assert len(chunks) >= 2
        times = [time for chunk in chunks for time in chunk["timestamp"]]
        assert times == sorted(times)
    for size in (31, 0.5):
        with pytest.raises(ValueError, match="window_seconds must lie between 1 and 30"):
            pipe(recording, window_seconds=size)


def test_silence_gives_no_text(pipe: Any) -> None:
    answer = pipe(np.zeros(2 * RATE), return_confidence=True, return_timestamps=True)
    assert answer == {"text": "", "chunks": [], "confidence": None, "no_speech": True}
    rng = np.random.default_rng(0)
    dither = rng.integers(-1, 2, RATE).astype(np.int16)
    assert pipe(dither)["text"] == ""
    assert "no_speech" not in pipe(talk(1.0), **SHORT)
    assert pipe(talk(1.0) * 1e-3, **SHORT)["text"] != ""  # quiet speech is speech
    assert pipe(talk(1.0) * 1e-3, silence_db=-40.0)["text"] == ""


def test_steady_noise_is_marked(pipe: Any) -> None:
    noise = (0.05 * np.random.default_rng(0).standard_normal(2 * RATE)).astype(np.float32)
    assert pipe(noise, **SHORT)["no_speech"] is True
    assert pipe(noise, **SHORT)["text"] != ""
    assert pipe(noise, drop_no_speech=True) == {"text": "", "no_speech": True}


@pytest.mark.parametrize("seconds", [3.0, 70.0])
def test_a_file_without_its_end_is_marked(pipe: Any, tmp_path: Path, seconds: float) -> None:
    path = tmp_path / "talk.wav"
    soundfile.write(path, np.resize(talk(3.0), int(seconds * RATE)), RATE)
    data = path.read_bytes()
    asked = {"return_timestamps": True, "window_seconds": 30.0, **SHORT}
    whole = pipe(str(path), **asked)
    assert "incomplete" not in whole and not any("incomplete" in chunk for chunk in whole["chunks"])
    path.write_bytes(data[: 9 * len(data) // 10])
    for source in (str(path), path.read_bytes()):
        answer = pipe(source, **asked)
        assert answer["incomplete"] is True
        assert [chunk.get("incomplete", False) for chunk in answer["chunks"]] == [
            number == len(answer["chunks"]) for number in range(1, len(answer["chunks"]) + 1)
        ]


@pytest.mark.parametrize("vad", ["silero", "webrtc"])
def test_voice_detectors(pipe: Any, vad: str) -> None:
    package = importlib.util.find_spec("silero_vad") if vad == "silero" else windows_slam_asr.webrtcvad
    recording = np.concatenate([np.zeros(RATE), talk(1.0), np.zeros(RATE)])
    if package is None:
        with pytest.raises(ValueError, match=f"vad='{vad}' needs a package that is not installed: `pip install"):
            pipe(recording, vad=vad)
        return
    noise = 0.002 * np.random.default_rng(0).standard_normal(3 * RATE)
    assert pipe(noise, vad=vad) == {"text": "", "no_speech": True}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"vad": "ears"}, "vad='ears' is unknown"),
        ({"return_timestamps": "char"}, "return_timestamps='char' is unknown"),
        ({"on_error": "ignore"}, "on_error='ignore' is unknown"),
        ({"overlap_seconds": 20}, "overlap_seconds must lie between"),
        ({"no_such_option": 1}, "no_such_option"),
        ({"batch_size": 0}, "batch_size must be 1 or more, got 0"),
        ({"return_language": True}, "return_language=True is not possible"),
        ({"generate_kwargs": {"task": "translate"}}, "task='translate' is not possible"),
    ],
)
def test_options_that_are_wrong(pipe: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        pipe(talk(0.5), **options)


def test_what_users_of_whisper_pass(make_pipe: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """The language may stand in `generate_kwargs`, a stride be a pair."""
    pipe = make_pipe()
    monkeypatch.setattr(pipe.processor, "language_prompt", "Write down the {language} speech.\n")
    plain = pipe(talk(1.0), **SHORT)
    danish = pipe(talk(1.0), language="da", **SHORT)
    assert danish != plain
    whispers = {"language": "da", "task": "transcribe", **SHORT}
    assert pipe(talk(1.0), generate_kwargs=whispers, return_language=False) == danish
    long = talk(12.0)
    assert pipe(long, chunk_length_s=5, stride_length_s=(1, 0.5), **SHORT) == pipe(
        long, window_seconds=5, overlap_seconds=1, **SHORT
    )


def test_the_saved_processor_is_used(
    make_tiny_model: Callable[..., Any], tiny_whisper_encoder_dir: Path, tiny_llama_dir: Path, tmp_path: Path
) -> None:
    """It holds what the configuration does not: the prompts for a language and for context."""
    prompts = {"language_prompt": "Write down the {language} speech.\n", "context_prompt": "Names: {context}\n"}
    make_tiny_model().save_pretrained(tmp_path)
    processor = SlamAsrProcessor.from_base_models(str(tiny_whisper_encoder_dir), str(tiny_llama_dir), **prompts)
    processor.save_pretrained(tmp_path)
    for pipe in (pipeline("automatic-speech-recognition", model=str(tmp_path)), load_pipeline(tmp_path, device="cpu")):
        assert {name: getattr(pipe.processor, name) for name in prompts} == prompts
        inputs = processor.apply_transcription_request(talk(1.0), language="da", context="fem")
        expected = processor.batch_decode(pipe.model.generate(**inputs, **SHORT), skip_special_tokens=True)[0]
        assert pipe(talk(1.0), language="da", context="fem", **SHORT)["text"] == expected


def test_a_bad_recording_among_good_ones(pipe: Any, recordings: list[np.ndarray], expected: list[Any]) -> None:
    sources = [recordings[0], "no/such.wav", recordings[1], np.array([np.nan]), b"text", {"id": 3}]
    with pytest.raises(ValueError, match="does not exist"):
        pipe(sources)
    answers = pipe(sources, batch_size=4, on_error="return", **SHORT)
    assert [answers[0], answers[2]] == expected[:2]
    assert "does not exist" in answers[1]["error"]
    assert "NaN" in answers[3]["error"]
    assert "decoded" in answers[4]["error"]
    assert answers[5]["id"] == [3]
    assert {answer["text"] for answer in (answers[1], answers[3], answers[4], answers[5])} == {""}


def test_damage_in_the_middle_of_a_long_file(pipe: Any, tmp_path: Path) -> None:
    samples = np.concatenate([talk(80.0), [np.nan]]).astype(np.float32)
    soundfile.write(tmp_path / "late.wav", samples, RATE, subtype="FLOAT")
    answers = pipe([str(tmp_path / "late.wav"), talk(0.4)], batch_size=2, on_error="return", **SHORT)
    assert answers[0]["text"] == ""
    assert "1 NaN" in answers[0]["error"]
    assert "error" not in answers[1]


def test_loops_are_trimmed_and_marked(make_pipe: Callable[..., Any]) -> None:
    pipe = make_pipe(generate_kwargs={"prefix_allowed_tokens_fn": lambda row, tokens: [60 + len(tokens) % 2]})
    answer = pipe(talk(5.0))
    assert answer["loop"] is True
    assert answer["truncated"] is True
    assert answer["text"] == pipe.tokenizer.decode([60, 61])
    whole = pipe(talk(5.0), trim_loops=False)
    assert len(whole["text"]) > 20
    assert whole["loop"] is True


def test_a_transcript_that_ends_by_itself_is_not_marked(make_pipe: Callable[..., Any]) -> None:
    pipe = make_pipe(generate_kwargs={"prefix_allowed_tokens_fn": lambda row, tokens: [60 if len(tokens) < 3 else 2]})
    for options in ({}, {"num_beams": 2}):
        answer = pipe([talk(1.0), talk(0.5)], batch_size=2, return_confidence="tokens", **options)[0]
        assert answer["text"] == pipe.tokenizer.decode([60] * 3)
        assert len(answer["tokens"]) == 4  # with the end token
        assert "truncated" not in answer


def test_stop_strings_end_a_transcript(make_pipe: Callable[..., Any]) -> None:
    """The pipeline gives `generate` the tokenizer that they need; what they end is not cut off by a limit."""
    pipe = make_pipe(generate_kwargs={"prefix_allowed_tokens_fn": lambda row, tokens: [60 + len(tokens) % 3]})
    whole = pipe(talk(1.0), max_new_tokens=9)
    assert whole["truncated"] is True
    stop = pipe.tokenizer.decode([60, 61])
    assert stop in whole["text"]
    for stops in (stop, [stop, "never"]):
        answer = pipe(talk(1.0), max_new_tokens=9, stop_strings=stops)
        assert answer["text"].endswith(stop) and len(answer["text"]) < len(whole["text"])
        assert "truncated" not in answer
    assert pipe(talk(1.0), max_new_tokens=9, stop_strings=["never"])["truncated"] is True


def test_a_generation_configuration_of_the_call(make_pipe: Callable[..., Any]) -> None:
    """It may leave the end token to the model: the transcript has then ended all the same."""
    pipe = make_pipe(generate_kwargs={"prefix_allowed_tokens_fn": lambda row, tokens: [60 if len(tokens) < 3 else 2]})
    plain = pipe([talk(1.0), talk(0.5)], return_confidence="tokens")
    given = GenerationConfig(num_beams=1)
    assert pipe([talk(1.0), talk(0.5)], generation_config=given, return_confidence="tokens") == plain
    assert "truncated" not in plain[0]


def test_several_sequences_give_the_first(pipe: Any, recordings: list[np.ndarray]) -> None:
    options = {"num_beams": 3, "max_new_tokens": 8}
    plain = pipe(recordings[:2], batch_size=2, **options)
    assert pipe(recordings[:2], batch_size=2, num_return_sequences=3, **options) == plain
    assert pipe(recordings[:2], batch_size=2, return_dict_in_generate=True, **options) == plain


def test_overlapping_windows_are_merged(make_pipe: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that names each second of the audio: merged, the seconds are all there, once."""
    pipe = make_pipe()
    words = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
    recording = np.concatenate([0.1 * np.cos(2 * np.pi * (200 + 50 * i) * np.arange(RATE) / RATE) for i in range(25)])
    tokens_of = pipe.processor.transcript_ids
    heard: list[tuple[int, int]] = []

    def listen(samples: np.ndarray) -> list[int]:
        """Which seconds a window holds for the most part, by the pitch of each."""
        names: list[int] = []
        for start in range(0, len(samples) - RATE // 2, RATE // 4):
            spectrum = np.abs(np.fft.rfft(samples[start : start + RATE // 2]))
            pitch = round((np.argmax(spectrum) * 2 - 200) / 50)
            if not names or names[-1] != pitch:
                names.append(pitch)
        return names

    texts: list[str] = []
    original = pipe.processor.extract_features

    def extract(samples: np.ndarray) -> np.ndarray:
        seconds = listen(samples)
        heard.append((seconds[0], seconds[-1]))
        texts.append(" ".join(f"{words[second // 10]}-{words[second % 10]}" for second in seconds))
        return original(samples)

    monkeypatch.setattr(pipe.processor, "extract_features", extract)
    position = iter(range(100))

    def speak(row: int, tokens: torch.Tensor) -> list[int]:
        if len(tokens) == 0:
            speak.target = tokens_of(texts[next(position)])  # type: ignore[attr-defined]
        return [speak.target[len(tokens)]]  # type: ignore[attr-defined]

    answer = pipe(recording, window_seconds=10, overlap_seconds=4, prefix_allowed_tokens_fn=speak, max_new_tokens=200)
    assert len(heard) > 2  # no pause: overlapping windows
    assert answer["text"].split() == [f"{words[second // 10]}-{words[second % 10]}" for second in range(25)]


@contextmanager
def progress_bars(on: bool) -> Iterator[None]:
    """transformers' progress bars on or off, afterwards as they were: the environment may have switched them off."""
    switch, before = {True: enable_progress_bar, False: disable_progress_bar}, is_progress_bar_enabled()
    switch[on]()
    try:
        yield
    finally:
        switch[before]()


def test_progress_goes_to_stderr_when_asked_for(pipe: Any, capsys: Any) -> None:
    recording = np.concatenate([talk(20.0), np.zeros(50 * RATE)]).astype(np.float32)
    with progress_bars(True):
        pipe(recording, progress=True, max_new_tokens=2)
    output = capsys.readouterr()
    assert output.out == ""
    assert "70" in output.err
    pipe(recording, max_new_tokens=2)
    assert capsys.readouterr().err == ""


def test_odds_and_ends(pipe: Any, recordings: list[np.ndarray], expected: list[dict[str, Any]]) -> None:
    assert pipe([]) == []
    assert list(pipe(iter(()))) == []
    assert pipe(recordings[1].tolist(), **SHORT) == expected[1]
    assert pipe(torch.from_numpy(recordings[1]), **SHORT) == expected[1]
    assert pickle.loads(pickle.dumps(expected)) == expected
    with pytest.raises(ValueError, match="stride"):
        pipe({"array": recordings[0], "sampling_rate": RATE, "stride": (1, 1)})


def test_half_precision(make_tiny_model: Callable[..., Any], make_pipe: Callable[..., Any]) -> None:
    pipe = make_pipe(make_tiny_model(dtype=torch.bfloat16))
    answer = pipe(talk(1.0), return_timestamps="word", return_confidence=True, **SHORT)
    assert 0 < answer["confidence"] < 1
    assert all(0 < chunk["confidence"] < 1 for chunk in answer["chunks"])


@pytest.mark.parametrize("seconds", [0.1, 0.3, 0.7, 2.0, 12.0])
def test_steady_noise_of_any_length_is_dropped(pipe: Any, seconds: float) -> None:
    noise = (0.05 * np.random.default_rng(0).standard_normal(int(seconds * RATE))).astype(np.float32)
    assert pipe(noise, drop_no_speech=True) == {"text": "", "no_speech": True}


@pytest.mark.parametrize("samples", [1, 160, 1599])
def test_what_is_shorter_than_a_word_is_not_transcribed(pipe: Any, samples: int) -> None:
    assert pipe(talk(1.0)[4000 : 4000 + samples], **SHORT) == {"text": "", "no_speech": True}


@pytest.mark.parametrize("tail", [0.11, 0.23, 0.4, 0.8])
def test_the_rest_of_a_pause_is_not_transcribed(pipe: Any, tail: float) -> None:
    """A cut in the final pause leaves a sliver: room noise that fades, neither silent nor steady."""
    noise = 0.002 * np.random.default_rng(0).standard_normal(RATE) * np.geomspace(1, 0.03, RATE)
    recording = np.concatenate([talk(4.6), noise[: int((0.4 + tail) * RATE)]]).astype(np.float32)
    kept = [window for window in cut_windows([recording], RATE, 5.0, 1.0) if not holds_no_word(window, RATE)]
    assert len(kept) == 1 and len(kept[0].samples) >= 4.6 * RATE


def test_every_error_is_returned_when_asked_for(pipe: Any) -> None:
    class Broken:
        def read(self) -> bytes:
            raise RuntimeError("the disk is gone")

    answers = pipe([talk(0.5), Broken(), object(), [1.0, "a"]], on_error="return", batch_size=2, **SHORT)
    assert "error" not in answers[0]
    assert answers[1] == {"text": "", "error": "RuntimeError: the disk is gone"}
    assert all(answer["error"] and not answer["text"] for answer in answers[1:])
    spoiled = pipe([talk(0.5)], on_error="return", max_new_tokens=-1)
    assert spoiled[0]["text"] == "" and "max_new_tokens" in spoiled[0]["error"]


def test_pairs_are_one_recording(pipe: Any) -> None:
    wave = (talk(1.0) * 32_767).astype(np.int16)
    assert pipe((RATE, wave), **SHORT) == pipe((wave, RATE), **SHORT) == pipe([(RATE, wave)], **SHORT)[0]
    assert pipe((RATE, wave), **SHORT)["text"] == pipe(wave, **SHORT)["text"]


def test_long_recordings_with_progress_bars_off(pipe: Any) -> None:
    recording = talk(62.0)
    expected = pipe(recording, max_new_tokens=2)
    with progress_bars(False):
        assert pipe(recording, progress=True, max_new_tokens=2) == expected


def test_eight_threads_over_all_modes(make_pipe: Callable[..., Any]) -> None:
    """One pipeline serves several threads at once: answers are those of one after the other, and the LLM is as it was."""
    pipe = make_pipe()
    modes: list[dict[str, Any]] = [
        {}, {"return_timestamps": True}, {"return_timestamps": "word"}, {"return_timestamps": "estimate"},
        {"return_confidence": True}, {"return_confidence": "tokens", "return_timestamps": "word"}, {"num_beams": 2},
        {"on_error": "return"},
    ]  # fmt: skip
    waves = [talk(0.6, seed=seed) for seed in range(3)]
    expected = [pipe(waves, **mode, **SHORT) for mode in modes]
    before = pipe.model.language_model.config._attn_implementation
    with ThreadPoolExecutor(8) as pool:
        jobs = [pool.submit(pipe, waves, **mode, **SHORT) for mode in modes for _ in range(2)]
        answers = [job.result() for job in jobs]
    assert answers == [answer for answer in expected for _ in range(2)]
    assert pipe.model.language_model.config._attn_implementation == before


def test_a_saved_pipeline_keeps_its_prompts(
    make_pipe: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe = make_pipe()
    monkeypatch.setattr(pipe.processor, "language_prompt", "Write down the {language} speech.\n")  # all tests share it
    pipe.save_pretrained(tmp_path)
    copy = pipeline("automatic-speech-recognition", model=str(tmp_path))
    assert copy.processor.language_prompt == pipe.processor.language_prompt
    assert copy(talk(1.0), language="da", **SHORT) == pipe(talk(1.0), language="da", **SHORT)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_data_set_ends_at_its_length(pipe: Any, recordings: list[np.ndarray], workers: int) -> None:
    class Endless(Dataset):
        def __len__(self) -> int:
            return 2

        def __getitem__(self, index: int) -> np.ndarray:
            return recordings[index % 2]

    answers = pipe(Endless(), num_workers=workers, **SHORT)
    assert len(answers) == 2 and list(answers) == [pipe(recording, **SHORT) for recording in recordings[:2]]


def test_a_streamer_ends_with_the_recording(pipe: Any) -> None:
    """Not with its first window, and also where nothing is said in it."""
    for sound in (np.zeros(RATE, dtype=np.float32), np.concatenate([talk(1.0), talk(1.0), np.zeros(RATE)])):
        streamer = TextIteratorStreamer(pipe.tokenizer, skip_special_tokens=True, timeout=30)
        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(pipe, sound, window_seconds=1.0, overlap_seconds=0.0, streamer=streamer, **SHORT)
            heard = "".join(streamer)
            assert heard.split() == answer.result()["text"].split()
        assert "on_finalized_text" not in vars(streamer)


def test_word_times_of_a_compiled_llm(make_pipe: Callable[..., Any]) -> None:
    pipe = make_pipe()
    plain = pipe(talk(1.0), return_timestamps="word", **SHORT)
    pipe.model.language_model.forward = torch.compile(pipe.model.language_model.forward, backend="eager")
    assert pipe(talk(1.0), return_timestamps="word", **SHORT) == plain
