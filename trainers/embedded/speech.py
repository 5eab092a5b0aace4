"""Speech for the embedded default: eSpeak NG in many voices, then a room, noise and a level, all drawn from one seed."""

import ctypes
import dataclasses
import functools
import importlib
import os
import random

import numpy as np
from numpy.typing import NDArray

from trainers.errors import UserError

SAMPLING_RATE = 16_000

# eSpeak NG's own voices of a language; English has accents, of which pretraining hears one more.
LANGUAGE_VOICES = {"da": ("da",), "nl": ("nl",), "en": ("en-us", "en-gb-x-rp")}
PRETRAINING_VOICES = {**LANGUAGE_VOICES, "en": ("en-us", "en-gb-x-rp", "en-029")}
# Decibels of speech over noise. Pretraining hears more noise than the corpus holds.
SNR_RANGE = (15.0, 35.0)
# Seconds before and after the words. Recordings that people make seldom start at once; a model that was trained on
# nothing else fails on them.
PRETRAINING_SILENCE = (0.05, 0.25)
SILENCE = (0.05, 0.8)
PRETRAINING_SNR_RANGE = (8.0, 30.0)
# Variants (eSpeak's word for a speaker's timbre). Those of the test set are in no training set, in any language.
TEST_VARIANTS = ("m7", "f4", "Andy", "michael")
VALIDATION_VARIANTS = ("m5", "f5", "Gene")
TRAINING_VARIANTS = (
    "m1", "m2", "m3", "m4", "m6", "m8", "f1", "f2", "f3", "Alex", "Alicia", "Andrea", "Annie", "Denis", "Diogo", "Gene2",
    "Henrique", "Hugo", "Jacky", "Lee", "Marco", "Mario", "Mike", "Nguyen", "Reed", "adam", "anika", "antonio", "aunty",
    "belinda", "benjamin", "boris", "caleb", "david", "ed", "edward", "grandma", "grandpa", "gustave", "ian", "john",
    "marcelo", "max", "michel", "miguel", "norbert", "pablo", "paul", "pedro", "quincy", "rob", "robert", "sandro",
    "shelby", "travis", "victor", "zac",
)  # fmt: skip
SPLIT_VARIANTS = {
    "pretrain": TRAINING_VARIANTS,
    "train": TRAINING_VARIANTS,
    "validation": VALIDATION_VARIANTS,
    "test": TEST_VARIANTS,
}

_CHARS_UTF8 = 1
_RATE, _PITCH, _RANGE = 1, 3, 4
_SYNCHRONOUS = 2
_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


@dataclasses.dataclass(frozen=True)
class SpeechSettings:
    """How one utterance sounds."""

    voice: str  # language voice + variant, such as "da+m3"; also the speaker's id
    words_per_minute: int
    pitch: int  # eSpeak's scale, 0 to 99
    pitch_range: int  # eSpeak's scale, 0 to 99
    reverberation: float  # seconds until the room's echo has fallen by 60 dB; 0 for none
    snr_db: float  # level of the speech over the noise
    noise_tilt: float  # 0 for white noise, 1 for brown-like noise
    peak: float  # greatest absolute sample, 0 to 1
    silence_before: float  # seconds
    silence_after: float  # seconds


def draw_settings(language: str, split: str, rng: random.Random) -> SpeechSettings:
    """Settings for one utterance, with a voice that the split may use."""
    pretraining = split == "pretrain"
    voices = PRETRAINING_VOICES if pretraining else LANGUAGE_VOICES
    voice = f"{rng.choice(voices[language])}+{rng.choice(SPLIT_VARIANTS[split])}"
    return SpeechSettings(
        voice=voice,
        words_per_minute=rng.randint(140, 215),
        pitch=rng.randint(25, 75),
        pitch_range=rng.randint(30, 70),
        reverberation=rng.uniform(0.1, 0.5) if rng.random() < 0.6 else 0.0,
        snr_db=rng.uniform(*(PRETRAINING_SNR_RANGE if pretraining else SNR_RANGE)),
        noise_tilt=rng.random(),
        peak=10 ** (rng.uniform(-16.0, -1.0) / 20),
        silence_before=rng.uniform(*(PRETRAINING_SILENCE if pretraining else SILENCE)),
        silence_after=rng.uniform(*(PRETRAINING_SILENCE if pretraining else SILENCE)),
    )


def speak(text: str, language: str, split: str, seed: str) -> tuple[NDArray[np.float32], SpeechSettings]:
    """
    One utterance and how it was made.

    The same arguments give the same samples in any process and in any order.

    Args:
        seed: names the utterance; it decides the voice and everything else about the sound.
    Returns:
        float32 samples of shape `(samples,)`, mono, 16 kHz, within -1 and 1; and the settings drawn.
    Raises:
        UserError: when the package espeakng-loader is missing, or a voice is not in its data.
    """
    settings = settings_of(language, split, seed)
    noise_seed = random.Random(f"noise/{language}/{split}/{seed}").getrandbits(64)
    return render(text, settings, np.random.default_rng(noise_seed)), settings


def settings_of(language: str, split: str, seed: str) -> SpeechSettings:
    """The settings that `speak` draws for the utterance that `seed` names."""
    return draw_settings(language, split, random.Random(f"speech/{language}/{split}/{seed}"))


def render(text: str, settings: SpeechSettings, noise: np.random.Generator) -> NDArray[np.float32]:
    """`text` spoken with `settings`, 16 kHz; `noise` gives the room's echo and the noise."""
    import soxr

    dry, rate = synthesize(text, settings.voice, settings.words_per_minute, settings.pitch, settings.pitch_range)
    wave = np.asarray(soxr.resample(dry.astype(np.float32) / 32768.0, rate, SAMPLING_RATE), dtype=np.float64)
    padding = [round(seconds * SAMPLING_RATE) for seconds in (settings.silence_before, settings.silence_after)]
    wave = np.pad(wave, padding)
    if settings.reverberation > 0:
        wave = add_room(wave, settings.reverberation, noise)
    wave = add_noise(wave, settings.snr_db, settings.noise_tilt, noise)
    return (wave * (settings.peak / np.abs(wave).max())).astype(np.float32)


def add_room(wave: NDArray[np.float64], seconds: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Convolve with a direct path and exponentially decaying noise whose level falls by 60 dB in `seconds`."""
    times = np.arange(round(seconds * SAMPLING_RATE)) / SAMPLING_RATE
    echo = rng.standard_normal(len(times)) * 10 ** (-3 * times / seconds)
    echo[: round(0.004 * SAMPLING_RATE)] = 0.0
    echo *= rng.uniform(0.3, 0.9) / np.sqrt(np.sum(echo**2))
    echo[0] = 1.0
    size = 1 << (len(wave) + len(echo) - 1).bit_length()
    return np.fft.irfft(np.fft.rfft(wave, size) * np.fft.rfft(echo, size), size)[: len(wave)]


def add_noise(wave: NDArray[np.float64], snr_db: float, tilt: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Add noise `snr_db` below the wave's own mean power; `tilt` weakens its high frequencies."""
    size = 1 << (len(wave) - 1).bit_length()
    spectrum = np.fft.rfft(rng.standard_normal(size))
    frequencies = np.fft.rfftfreq(size, 1 / SAMPLING_RATE)
    noise = np.fft.irfft(spectrum * (1 + frequencies / 200.0) ** -tilt, size)[: len(wave)]
    return wave + noise * np.sqrt(np.mean(wave**2) / np.mean(noise**2)) * 10 ** (-snr_db / 20)


def synthesize(
    text: str, voice: str, words_per_minute: int = 175, pitch: int = 50, pitch_range: int = 50
) -> tuple[NDArray[np.int16], int]:
    """
    eSpeak NG's own samples, and their rate in Hz.

    eSpeak keeps state between utterances (its flutter goes on where the last one ended). So each is spoken by a child
    process that starts from the state after initialisation: the samples depend on the arguments alone.
    """
    _, rate = _espeak()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(reader)
            samples = _speak_here(text, voice, words_per_minute, pitch, pitch_range)
            with os.fdopen(writer, "wb") as stream:
                stream.write(samples)
            status = 0
        finally:
            os._exit(status)
    os.close(writer)
    with os.fdopen(reader, "rb") as stream:
        data = stream.read()
    _, status = os.waitpid(child, 0)
    if status != 0 or not data:
        raise UserError(f"eSpeak NG could not speak {text!r} in the voice {voice!r}. Reinstall espeakng-loader.")
    return np.frombuffer(data, dtype=np.int16), rate


@functools.cache
def _espeak() -> tuple[ctypes.CDLL, int]:
    """The library, initialised but not yet used, and its sampling rate."""
    try:
        loader = importlib.import_module("espeakng_loader")
    except ImportError as error:
        raise UserError(
            "The package espeakng-loader, which speaks the embedded default's sentences, is not installed. "
            'Install it with: pip install "slam-asr[quickstart]"'
        ) from error
    library = ctypes.CDLL(loader.get_library_path())
    rate = library.espeak_Initialize(_SYNCHRONOUS, 0, os.fsencode(loader.get_data_path()), 0)
    if rate <= 0:
        raise UserError(
            f"eSpeak NG did not start with the data in {loader.get_data_path()}. Reinstall espeakng-loader."
        )
    return library, rate


def _speak_here(text: str, voice: str, words_per_minute: int, pitch: int, pitch_range: int) -> bytes:
    """The samples as bytes (int16). Changes eSpeak's state: only for the child process of `synthesize`."""
    library, _ = _espeak()
    chunks: list[bytes] = []

    def keep(samples: "ctypes._Pointer[ctypes.c_short]", count: int, _events: int | None) -> int:
        if samples and count > 0:
            chunks.append(ctypes.string_at(samples, 2 * count))
        return 0

    callback = _CALLBACK(keep)
    library.espeak_SetSynthCallback(callback)
    _ask_espeak(library, text, voice, words_per_minute, pitch, pitch_range)
    return b"".join(chunks)


def _ask_espeak(
    library: ctypes.CDLL, text: str, voice: str, words_per_minute: int, pitch: int, pitch_range: int
) -> None:
    """Have the library speak into the callback that was set."""
    if library.espeak_SetVoiceByName(voice.encode()) != 0:
        raise UserError(f"eSpeak NG has no voice {voice!r}.")
    for parameter, value in ((_RATE, words_per_minute), (_PITCH, pitch), (_RANGE, pitch_range)):
        library.espeak_SetParameter(parameter, value, 0)
    encoded = text.encode("utf-8")
    library.espeak_Synth(encoded, len(encoded) + 1, 0, 1, 0, _CHARS_UTF8, None, None)
