"""Speech for the embedded default: eSpeak NG in many voices, then a room, noise and a level, all drawn from one seed."""

import dataclasses
import random

import numpy as np
from numpy.typing import NDArray

from trainers.embedded.espeak import synthesize
from trainers.sound import RATE

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
    voice = f"{rng.choice(voices.get(language, (language,)))}+{rng.choice(SPLIT_VARIANTS[split])}"
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
    wave = np.asarray(soxr.resample(dry.astype(np.float32) / 32768.0, rate, RATE), dtype=np.float64)
    padding = [round(seconds * RATE) for seconds in (settings.silence_before, settings.silence_after)]
    wave = np.pad(wave, padding)
    if settings.reverberation > 0:
        wave = add_room(wave, settings.reverberation, noise)
    wave = add_noise(wave, settings.snr_db, settings.noise_tilt, noise)
    return (wave * (settings.peak / np.abs(wave).max())).astype(np.float32)


def add_room(wave: NDArray[np.float64], seconds: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Convolve with a direct path and exponentially decaying noise whose level falls by 60 dB in `seconds`."""
    times = np.arange(round(seconds * RATE)) / RATE
    echo = rng.standard_normal(len(times)) * 10 ** (-3 * times / seconds)
    echo[: round(0.004 * RATE)] = 0.0
    echo *= rng.uniform(0.3, 0.9) / np.sqrt(np.sum(echo**2))
    echo[0] = 1.0
    size = 1 << (len(wave) + len(echo) - 1).bit_length()
    return np.fft.irfft(np.fft.rfft(wave, size) * np.fft.rfft(echo, size), size)[: len(wave)]


def add_noise(wave: NDArray[np.float64], snr_db: float, tilt: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Add noise `snr_db` below the wave's own mean power; `tilt` weakens its high frequencies."""
    size = 1 << (len(wave) - 1).bit_length()
    spectrum = np.fft.rfft(rng.standard_normal(size))
    frequencies = np.fft.rfftfreq(size, 1 / RATE)
    noise = np.fft.irfft(spectrum * (1 + frequencies / 200.0) ** -tilt, size)[: len(wave)]
    return wave + noise * np.sqrt(np.mean(wave**2) / np.mean(noise**2)) * 10 ** (-snr_db / 20)
