"""Every kind of sound that users have, and every kind that cannot be one."""

import io
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from modeling_slam_asr import audio_slam_asr
from modeling_slam_asr.audio_slam_asr import load_audio, read_blocks
from tests.modeling_slam_asr.conftest import encoded, talk

RATE = 16_000
TALK = talk(1.0)


@dataclass
class Decoded:
    data: torch.Tensor
    sample_rate: int


class Decoder:
    """The interface of torchcodec's AudioDecoder that is used."""

    def get_all_samples(self) -> Decoded:
        return Decoded(torch.from_numpy(np.stack([TALK, TALK])), RATE)


@pytest.mark.parametrize(
    "source",
    [
        TALK,
        TALK.astype(np.float64),
        (TALK * 32_767).astype(np.int16),
        (TALK.astype(np.float64) * 2_147_483_647).astype(np.int32),
        (TALK * 32_767).astype(np.int16).tolist(),
        (TALK * 127 + 128).astype(np.uint8),
        TALK.tolist(),
        torch.from_numpy(TALK),
        torch.from_numpy(TALK).double(),
        torch.from_numpy((TALK * 32_767).astype(np.int16)),
        np.stack([TALK, TALK]),
        np.stack([TALK, TALK], axis=1),
        np.stack([TALK * 2, np.zeros_like(TALK)], axis=1),
        {"array": TALK, "sampling_rate": RATE},
        {"raw": TALK, "sampling_rate": RATE},
        {"bytes": encoded(TALK), "path": None},
        {"bytes": encoded(TALK), "path": "gone.wav"},
        {"audio": {"array": TALK, "sampling_rate": RATE, "path": "x.wav"}, "text": "en"},
        {"audio": Decoder()},
        Decoder(),
        bytearray(encoded(TALK)),
        memoryview(encoded(TALK)),
        encoded(TALK),
        encoded(TALK, form="FLAC"),
        encoded(np.stack([TALK, TALK], axis=1), subtype="FLOAT"),
    ],
)
def test_sources(source: Any) -> None:
    samples = load_audio(source)
    assert samples.dtype == np.float32
    assert samples.shape == TALK.shape
    assert np.abs(samples - TALK).max() < 0.02


def test_open_files(pipe: Any) -> None:
    plain = pipe(encoded(TALK), max_new_tokens=4)
    assert pipe(io.BytesIO(encoded(TALK)), max_new_tokens=4) == plain
    assert pipe([io.BytesIO(encoded(TALK)), encoded(TALK)], batch_size=2, max_new_tokens=4) == [plain, plain]
    assert pipe(bytearray(encoded(TALK)), max_new_tokens=4) == plain
    assert pipe(memoryview(encoded(TALK)), max_new_tokens=4) == plain


def test_a_decoder_is_asked_once() -> None:
    class Counting(Decoder):
        calls = 0

        def get_all_samples(self) -> Decoded:
            self.calls += 1
            return super().get_all_samples()

    decoder = Counting()
    blocks, seconds = read_blocks({"audio": decoder})
    assert len(np.concatenate(list(blocks))) == len(TALK) == round(seconds * RATE)
    assert decoder.calls == 1


def test_a_list_of_numpy_numbers_is_one_recording(tiny_processor: Any) -> None:
    """`list(array)` holds numpy's numbers, which need not be Python's."""
    inputs = tiny_processor.apply_transcription_request(list(TALK))
    assert torch.equal(inputs["input_features"], tiny_processor.apply_transcription_request(TALK)["input_features"])


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 44_100, 48_000])
def test_rates(rate: int, tmp_path: Path) -> None:
    time = np.arange(rate) / rate
    samples = (0.5 * np.sin(2 * np.pi * 440 * time)).astype(np.float32)
    expected = 0.5 * np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE)
    soundfile.write(tmp_path / "a.wav", np.stack([samples, samples], axis=1), rate)
    for source in ({"array": samples, "sampling_rate": rate}, tmp_path / "a.wav", str(tmp_path / "a.wav")):
        heard = load_audio(source)
        assert abs(len(heard) - RATE) <= 1
        assert np.abs(heard[500:15_000] - expected[500:15_000]).max() < 0.01
    assert len(load_audio(samples, source_rate=rate)) == pytest.approx(RATE, abs=1)


@pytest.mark.parametrize("form", ["OGG", "MP3"])
def test_lossy_files(form: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{form.lower()}"
    path.write_bytes(encoded(np.concatenate([TALK] * 3), form=form))
    assert len(load_audio(path)) == pytest.approx(3 * len(TALK), abs=3_000)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("no/such.wav", "'no/such.wav' does not exist"),
        ("a\0.wav", "cannot be read: embedded null byte"),
        ("x" * 5_000, "cannot be read: File name too long"),
        (b"", "is empty: the file has 0 bytes"),
        (
            b"this is a text file\n" * 50,
            r"^The recording \(1000 bytes\) is not sound that can be decoded: [^<(]*\. wav, flac",
        ),
        (
            {"bytes": b"<html>" * 20, "path": "a.mp3"},
            r"^The recording 'a.mp3' is not sound that can be decoded: [^<(]*\. wav",
        ),
        ({"bytes": b"<html>" * 20, "path": None}, r"^The recording \(120 bytes\) is not sound"),
        (encoded(np.zeros(0, dtype=np.float32)), "is empty: it holds no samples"),
        (np.zeros(0), "is empty"),
        ([], "is empty"),
        (np.array([0.0, np.nan, np.inf]), "has 2 NaN or infinite samples of 3"),
        (encoded(np.array([0.0, np.nan], dtype=np.float32), subtype="FLOAT"), "has 1 NaN"),
        ({"array": TALK}, "no 'sampling_rate'"),
        ({"sampling_rate": RATE}, "has none of the keys"),
        ({"array": TALK, "sampling_rate": 0}, "sampling rate 0,"),
        ({"array": TALK, "sampling_rate": 16}, "sampling rate 16, which is not possible. Give it in Hz"),
        ({"array": TALK, "sampling_rate": "16k"}, "sampling rate '16k'"),
        (np.zeros((2, 3, 4)), "has 3 dimensions"),
        (np.array(["a"]), "holds values of type"),
        (np.array([True]), "holds values of type"),
        (np.array([1 + 2j]), "holds values of type"),
        (np.array([100_000]), "64-bit whole numbers"),
        ([[0.1, 0.2], [0.3]], "uneven parts"),
        (None, "is no audio"),
        (7, "is no audio"),
    ],
    ids=range(25),  # encoded sound carries the time of its making, and test names must not change
)
def test_what_is_no_sound(source: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        load_audio(source)
    assert "\n" not in str(error.value)


def test_files_that_are_no_sound(tmp_path: Path) -> None:
    (tmp_path / "text.wav").write_text("not a sound\n" * 100)
    (tmp_path / "empty.wav").touch()
    for path, message in (
        (tmp_path / "text.wav", "text.wav' is not sound"),
        (tmp_path / "empty.wav", "0 bytes"),
        (tmp_path, "is a folder"),
    ):
        for read in (load_audio, read_blocks):
            with pytest.raises(ValueError, match=message):
                read(path)


@pytest.mark.parametrize("rate", [16_000, 22_050])
def test_long_files_are_read_in_blocks(rate: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    samples = (0.1 * rng.standard_normal((70 * rate, 2))).astype(np.float32)
    soundfile.write(tmp_path / "long.flac", samples, rate)
    blocks, seconds = read_blocks(tmp_path / "long.flac")
    held = list(blocks)
    assert seconds == pytest.approx(70)
    assert max(map(len, held)) <= 31 * RATE
    whole = load_audio(tmp_path / "long.flac")
    joined = np.concatenate(held)
    assert abs(len(joined) - len(whole)) <= 1
    assert np.abs(joined[: len(whole)] - whole[: len(joined)]).max() < 1e-4


def test_damage_late_in_a_long_file(tmp_path: Path) -> None:
    samples = np.zeros(70 * RATE, dtype=np.float32)
    samples[-5] = np.nan
    soundfile.write(tmp_path / "late.wav", samples, RATE, subtype="FLOAT")
    blocks, _ = read_blocks(tmp_path / "late.wav")
    with pytest.raises(ValueError, match=r"late.wav' has 1 NaN"):
        list(blocks)


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/moved.wav":
            self.send_response(302)
            self.send_header("Location", "/talk.wav")
            self.end_headers()
            return
        found = self.path in ("/talk.wav", "/endless.wav")
        self.send_response(200 if found else 404)
        self.end_headers()
        if self.path == "/talk.wav":
            self.wfile.write(encoded(TALK))
        elif found:
            try:
                for _ in range(1_000):
                    self.wfile.write(b"\0" * 65_536)
            except OSError:
                pass  # the client hung up, as it should

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    http = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{http.server_port}"
    http.shutdown()
    http.server_close()
    thread.join()


def test_addresses(server: str, pipe: Any) -> None:
    for name in ("talk.wav", "moved.wav"):
        assert np.abs(load_audio(f"{server}/{name}") - TALK).max() < 0.01
    assert pipe(f"{server}/talk.wav", max_new_tokens=4) == pipe(encoded(TALK), max_new_tokens=4)


def test_addresses_that_fail(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="cannot be fetched: the server answers 404"):
        load_audio(f"{server}/none.wav")
    with pytest.raises(ValueError, match="cannot be fetched"):
        load_audio("http://127.0.0.1:9/talk.wav")
    with pytest.raises(ValueError, match="cannot be fetched"):
        load_audio("http://[/talk.wav")
    monkeypatch.setattr(audio_slam_asr, "DOWNLOAD_BYTES", 1 << 20)
    with pytest.raises(ValueError, match="longer than 1 MiB"):
        load_audio(f"{server}/endless.wav")
    monkeypatch.setattr(audio_slam_asr, "DOWNLOAD_SECONDS", -1.0)
    with pytest.raises(ValueError, match="is not here after"):
        load_audio(f"{server}/talk.wav")


def test_the_standard_library_reads_plain_wav(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audio_slam_asr, "soundfile", None)
    assert np.abs(load_audio(encoded(TALK)) - TALK).max() < 1e-3
    for content, message in (
        (encoded(TALK, subtype="PCM_24"), "24-bit samples"),
        (encoded(TALK, form="FLAC"), "not a plain wav file"),
    ):
        with pytest.raises(ValueError, match=message):
            load_audio(content)
    monkeypatch.setattr(audio_slam_asr, "soxr", None)
    with pytest.raises(ValueError, match="pip install soxr"):
        load_audio(TALK, source_rate=8_000)
