"""eSpeak NG's speech: the same samples whatever came before, and voices that keep to their splits."""

import multiprocessing
import os
import random
import sys

import numpy as np
import pytest

from trainers.embedded import espeak, speech
from trainers.embedded.sentences import LANGUAGES
from trainers.errors import UserError
from trainers.sound import RATE


def spoken(seed: str) -> bytes:
    return speech.speak("the old clock is under the stairs", "en", "train", seed)[0].tobytes()


def test_form_of_the_wave() -> None:
    wave, settings = speech.speak("i går købte anna en rød cykel", "da", "train", "1")
    assert wave.dtype == np.float32 and wave.ndim == 1
    assert 1.0 < len(wave) / RATE < 6.0
    assert np.isfinite(wave).all()
    assert np.abs(wave).max() == pytest.approx(settings.peak, rel=1e-5)


def test_same_seed_same_wave_in_any_order() -> None:
    first = [spoken(str(seed)) for seed in range(4)]
    assert [spoken(str(seed)) for seed in (3, 1, 2, 0)] == [first[3], first[1], first[2], first[0]]
    assert len(set(first)) == 4


def test_same_wave_in_another_process() -> None:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        there = pool.map(spoken, ["5", "6"])
    assert there == [spoken("5"), spoken("6")]


def test_settings_can_be_known_without_speaking() -> None:
    assert speech.settings_of("nl", "test", "9") == speech.speak("goed", "nl", "test", "9")[1]


def test_test_voices_are_in_no_training_set() -> None:
    groups = [set(speech.TRAINING_VARIANTS), set(speech.VALIDATION_VARIANTS), set(speech.TEST_VARIANTS)]
    assert sum(map(len, groups)) == len(set.union(*groups))
    for split, allowed in (
        ("pretrain", groups[0]),
        ("train", groups[0]),
        ("validation", groups[1]),
        ("test", groups[2]),
    ):
        drawn = {
            speech.draw_settings(language, split, random.Random(seed)).voice.split("+")[1]
            for language in LANGUAGES
            for seed in range(200)
        }
        assert drawn <= allowed
        assert len(drawn) > 1


@pytest.mark.parametrize("variant", speech.TRAINING_VARIANTS[::9] + speech.VALIDATION_VARIANTS + speech.TEST_VARIANTS)
def test_every_voice_speaks(variant: str) -> None:
    for voices in speech.LANGUAGE_VOICES.values():
        samples, rate = speech.synthesize("nine boats", f"{voices[0]}+{variant}")
        assert len(samples) / rate > 0.4
        assert np.abs(samples).max() > 1000


def test_noise_has_the_asked_level() -> None:
    rng = np.random.default_rng(0)
    wave = np.sin(np.arange(16_000) * 0.05)
    noise = speech.add_noise(wave, 12.0, 0.5, rng) - wave
    assert 10 * np.log10(np.mean(wave**2) / np.mean(noise**2)) == pytest.approx(12.0, abs=1e-6)


def test_room_leaves_a_tail() -> None:
    wave = np.zeros(8_000)
    wave[100] = 1.0
    room = speech.add_room(wave, 0.3, np.random.default_rng(0))
    assert len(room) == len(wave)
    assert room[100] == pytest.approx(1.0)
    assert np.sum(room[200:2000] ** 2) > 10 * np.sum(room[2500:] ** 2) > 0


def test_unknown_voice_is_a_user_error() -> None:
    with pytest.raises(UserError, match="could not speak 'hello' in the voice 'xx\\+nobody'"):
        speech.synthesize("hello", "xx+nobody")


def test_missing_package_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    espeak.espeak.cache_clear()
    try:
        with pytest.raises(UserError, match=r'pip install "slam-asr\[quickstart\]"'):
            speech.synthesize("hello", "en-us+m1")
    finally:
        espeak.espeak.cache_clear()


def test_samples_are_the_same_where_processes_cannot_be_forked(monkeypatch: pytest.MonkeyPatch) -> None:
    forked, rate = speech.synthesize("ni både", "da+m1", words_per_minute=190)
    monkeypatch.delattr(os, "fork")
    spawned, same_rate = speech.synthesize("ni både", "da+m1", words_per_minute=190)
    assert same_rate == rate
    assert np.array_equal(spawned, forked)
    with pytest.raises(UserError, match="could not speak 'hello' in the voice 'xx\\+nobody'"):
        speech.synthesize("hello", "xx+nobody")
