"""Every kind of sound that users have, every kind that cannot be one, and files whose end is missing."""

import io
import logging
import os
import tracemalloc
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers.utils import logging as transformers_logging

from modeling_slam_asr import audio_slam_asr
from modeling_slam_asr.audio_slam_asr import load_audio, read_blocks
from modeling_slam_asr.windows_slam_asr import joined_files, missing_end, mp3_size, read_in_part
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
    blocks, seconds, _ = read_blocks({"audio": decoder})
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
        ("a\0.wav", "cannot be read: .*embedded null"),
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
    blocks, seconds, _ = read_blocks(tmp_path / "long.flac")
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
    blocks, _, _ = read_blocks(tmp_path / "late.wav")
    with pytest.raises(ValueError, match=r"late.wav' has 1 NaN"):
        list(blocks)


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


NOISE = (0.1 * np.random.default_rng(0).standard_normal(6 * RATE)).astype(np.float32)
FORMS = [
    ("WAV", "PCM_16"), ("WAV", "FLOAT"), ("WAVEX", "PCM_24"), ("AIFF", "PCM_16"), ("W64", "PCM_16"), ("FLAC", "PCM_16"),
    ("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", "MPEG_LAYER_III"),
]  # fmt: skip


@pytest.fixture
def messages(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    transformers_logging.enable_propagation()
    caplog.set_level(logging.WARNING)
    yield caplog  # type: ignore[misc]
    transformers_logging.disable_propagation()


@pytest.mark.parametrize(("form", "subtype"), FORMS)
def test_a_half_is_told_from_a_whole(form: str, subtype: str, messages: pytest.LogCaptureFixture) -> None:
    data = encoded(NOISE, form=form, subtype=subtype)
    assert len(load_audio(data, whole=True)) >= len(NOISE)
    assert len(load_audio(data + b"tail" * 50 if form == "WAV" else data, whole=True)) >= len(NOISE)
    half = data[: len(data) // 2]
    with pytest.raises(ValueError, match=r"is cut short: .* are there|is cut short: the last page|lost sync"):
        load_audio(half, whole=True)
    assert not messages.records
    if form != "FLAC":  # its decoder cannot go on
        assert RATE < len(load_audio(half)) < 4 * RATE
        assert "is cut short" in messages.text and "What is there is transcribed" in messages.text


def test_streamed_wav_files_announce_no_size() -> None:
    data = encoded(NOISE)
    for size in (0xFFFFFFFF, 0x7FFFF024, 0x7FFFF000):
        announced = size.to_bytes(4, "little")
        streamed = data[:4] + announced + data[8:40] + announced + data[44:]
        assert len(load_audio(streamed, whole=True)) == len(NOISE)


def test_a_header_that_counts_itself_is_no_damage() -> None:
    data = encoded(NOISE)
    sloppy = data[:40] + (2 * len(NOISE) + 44).to_bytes(4, "little") + data[44:]
    assert len(load_audio(sloppy, whole=True)) == len(NOISE)


def test_long_files_are_looked_at_too(tmp_path: Path, messages: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "long.wav"
    path.write_bytes(encoded(np.tile(NOISE, 25))[: 32_000 * 100])
    blocks, seconds, _ = read_blocks(path)
    assert sum(map(len, blocks)) == pytest.approx(seconds * RATE) and 90 < seconds < 101
    assert messages.text.count("is cut short") == 1


def test_without_soundfile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audio_slam_asr, "soundfile", None)
    data = encoded(NOISE)
    assert len(load_audio(data, whole=True)) == len(NOISE)
    with pytest.raises(ValueError, match="192000 bytes of sound are announced and 95978 are there"):
        load_audio(data[: len(data) // 2], whole=True)


def test_an_mp3_file_behind_a_long_tag() -> None:
    data = encoded(NOISE, form="MP3")
    size = 300_000
    tag = b"ID3\x04\x00\x00" + bytes((size >> shift) & 127 for shift in (21, 14, 7, 0)) + bytes(size)
    assert mp3_size(data) == len(data) and mp3_size(tag + data) == len(tag + data)
    assert len(load_audio(tag + data, whole=True)) >= len(NOISE)
    with pytest.raises(ValueError, match="is cut short"):
        load_audio((tag + data)[: size + len(data) // 2], whole=True)


@given(
    st.binary(max_size=200), st.sampled_from([b"", b"ID3", b"\xff\xfb", b"ID3\x04\x00\x00\x00\x00\x00\x00\xff\xfbXing"])
)
def test_no_bytes_upset_it(data: bytes, start: bytes) -> None:
    size = mp3_size(start + data)
    assert size is None or size > 0
    assert missing_end(start + data, 2**40, "") is None


@pytest.mark.parametrize("size", [b"\0" * 4, b"\xff" * 4])
@pytest.mark.parametrize("seconds", [1.0, 65.0])
def test_wav_files_without_sizes(tmp_path: Path, size: bytes, seconds: float) -> None:
    """As programs write them into a pipe."""
    wave = np.tile(NOISE, 11)[: int(seconds * RATE)]
    content = bytearray(encoded(wave, RATE, "WAV", "PCM_16"))
    place = content.find(b"data")
    content[4:8] = content[place + 4 : place + 8] = size
    path = tmp_path / "stream.wav"
    path.write_bytes(content)
    expected = load_audio(encoded(wave, RATE, "WAV", "PCM_16"))
    assert np.array_equal(load_audio(bytes(content), whole=True), expected)
    blocks, length, _ = read_blocks(path)
    assert np.array_equal(np.concatenate(list(blocks)), expected)
    assert length == pytest.approx(seconds)


def test_a_wav_file_beyond_2_gib_is_read_in_blocks(tmp_path: Path) -> None:
    head = bytearray(encoded(np.zeros(0, dtype=np.float32), 44_100, "WAV", "PCM_16"))
    size = 8 * 3600 * 44_100 * 2
    place = head.find(b"data") + 4
    head[4:8], head[place : place + 4] = (size + len(head) - 8).to_bytes(4, "little"), size.to_bytes(4, "little")
    path = tmp_path / "day.wav"
    path.write_bytes(head)
    os.truncate(path, size + len(head))  # a file with a hole: it takes no room on the disk
    blocks, seconds, _ = read_blocks(path)
    assert seconds == 8 * 3600 and len(next(blocks)) <= 30 * RATE
    os.truncate(path, 3 << 30)
    assert read_in_part(path, "day.wav"), "sound goes on after a size that a writer into a pipe puts there"


def test_an_empty_wav_file_stays_empty() -> None:
    with pytest.raises(ValueError, match="is empty"):
        load_audio(encoded(NOISE[:0], RATE, "WAV", "PCM_16"))


@pytest.mark.parametrize("form", [("MP3", "MPEG_LAYER_III"), ("OGG", "VORBIS"), ("OGG", "OPUS")])
def test_files_in_a_row_are_read_to_their_end(tmp_path: Path, form: tuple[str, str]) -> None:
    parts = [
        encoded(NOISE[: 2 * RATE], RATE, *form),
        encoded(NOISE[2 * RATE :], RATE, *form),
        encoded(NOISE, RATE, *form),
    ]
    alone = sum(len(load_audio(part)) for part in parts)
    path = tmp_path / "joined"
    path.write_bytes(b"".join(parts))
    assert len(load_audio(path, whole=True)) == pytest.approx(alone, rel=0.01)
    assert sum(map(len, read_blocks(path)[0])) == pytest.approx(alone, rel=0.01)


def test_many_files_in_a_row_take_no_more_memory_than_their_size() -> None:
    part = encoded(NOISE[:RATE], form="MP3")
    data = part * 400
    tracemalloc.start()
    try:
        parts = joined_files(data, "a")
        assert tracemalloc.get_traced_memory()[1] < 1.5 * len(data)
    finally:
        tracemalloc.stop()
    assert parts == [part] * 400
    with pytest.raises(ValueError, match="more than 1000 recordings in a row"):
        load_audio(part * 1_100)


@pytest.mark.parametrize("form", ["MP3", "OGG"])
def test_the_sum_of_files_in_a_row_is_checked_before_the_last_is_read(
    form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = encoded(NOISE, form=form)
    monkeypatch.setattr(audio_slam_asr, "MAX_SECONDS", 2.5 * len(NOISE) / RATE)
    assert len(load_audio(data * 2)) >= 2 * len(NOISE)
    decoded, decode = [], audio_slam_asr._decode
    monkeypatch.setattr(
        audio_slam_asr, "_decode", lambda source, *rest: decoded.append(source) or decode(source, *rest)
    )
    with pytest.raises(ValueError, match="announces 18 s of sound"):
        load_audio(data * 4)
    assert decoded == [data * 4, data, data]


def test_pairs_of_rate_and_samples() -> None:
    whole = (TALK * 32_767).astype(np.int16)
    expected = load_audio({"array": whole, "sampling_rate": 8_000})
    for pair in ((8_000, whole), (whole, 8_000), [8_000, whole], (8_000, whole.tolist()), {"audio": (8_000, whole)}):
        assert np.allclose(load_audio(pair), expected, atol=1e-4)


def test_floats_in_the_range_of_16_bits(tmp_path: Path) -> None:
    assert np.allclose(load_audio(NOISE * 32_768), NOISE, atol=1e-6)
    assert np.array_equal(load_audio(NOISE * 6), NOISE * 6), "a little beyond 1 is no other unit"
    with pytest.raises(ValueError, match="Give floats from -1 to 1"):
        load_audio(NOISE * 1e6)
    long = np.tile(NOISE, 12)
    soundfile.write(tmp_path / "long.wav", long * 32_768, RATE, "FLOAT")
    assert np.allclose(np.concatenate(list(read_blocks(tmp_path / "long.wav")[0])), long, atol=1e-6)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_devices_and_pipes_are_no_recordings(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.wav")
    (tmp_path / "zero.wav").symlink_to("/dev/zero")
    for name in ("pipe.wav", "zero.wav"):
        with pytest.raises(ValueError, match="no file but a device or a pipe"):
            load_audio(str(tmp_path / name))


def test_many_channels_at_a_high_rate_are_read_a_little_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "wide.wav"
    tone = np.sin(np.arange(64 * 16_000) / 20).astype(np.float32) * 0.1
    soundfile.write(path, np.repeat(tone[:, None], 4, axis=1), 16_000)
    whole = np.concatenate(list(read_blocks(path)[0]))
    monkeypatch.setattr(audio_slam_asr, "_SMALL_BYTES", 1 << 20)
    blocks = list(read_blocks(path)[0])
    assert max(map(len, blocks)) <= (1 << 20) // 16 < len(whole) and np.array_equal(np.concatenate(blocks), whole)


def test_an_endless_name_is_a_short_message() -> None:
    with pytest.raises(ValueError, match=r"x{200}") as caught:
        load_audio("x" * 100_000)
    assert len(str(caught.value)) < 1_000


def test_a_long_file_of_an_impossible_rate_is_refused(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "slow.wav", np.zeros(100_000, dtype=np.int16), 1)
    with pytest.raises(ValueError, match=r"sampling rate 1,|announces 100000 s"):
        read_blocks(tmp_path / "slow.wav")
