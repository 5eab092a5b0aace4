"""Sound files whose end is missing."""

import logging
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers.utils import logging as transformers_logging

from modeling_slam_asr import audio_slam_asr
from modeling_slam_asr.audio_slam_asr import load_audio, read_blocks
from modeling_slam_asr.truncation_slam_asr import missing_end, mp3_size
from tests.modeling_slam_asr.conftest import encoded

RATE = 16_000
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
    blocks, seconds = read_blocks(path)
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
