"""Changes to the training audio. Each is drawn from (seed, epoch, row): the same in any process, worker or resumed run."""

import logging
from functools import lru_cache
from pathlib import Path

import numpy as np
import soundfile
import soxr

from modeling_slam_asr.audio_slam_asr import load_audio
from modeling_slam_asr.projector_slam_asr import ENCODER_SECONDS
from trainers.data.spec import AugmentationSpec, NoiseAugment, SpecAugment
from trainers.data.suffixes import SOUND_SUFFIXES
from trainers.errors import UserError
from trainers.sound import RATE

_SILENCE_LEVEL = 1e-4

logger = logging.getLogger(__name__)


class Augmenter:
    """Applies an `AugmentationSpec` to waves and spectrograms."""

    def __init__(self, spec: AugmentationSpec, seed: int, sampling_rate: int = RATE) -> None:
        self.spec, self.seed, self.sampling_rate = spec, seed, sampling_rate
        if spec.noise is not None and spec.noise.folder is not None:
            noise_files(spec.noise.folder)

    def generator(self, epoch: int, index: int) -> np.random.Generator:
        """The random numbers of one row in one epoch."""
        return np.random.default_rng([self.seed, epoch, index])

    def wave(self, samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Speed, silence and noise, in this order: (samples,) float32 of another length, at most 30 s."""
        most = int(ENCODER_SECONDS * self.sampling_rate)
        if self.spec.speed_factors:
            factor = float(rng.choice(self.spec.speed_factors))
            if len(samples) / factor <= most:
                samples = change_speed(samples, factor, self.sampling_rate)
        if self.spec.silence is not None and rng.random() < self.spec.silence.probability:
            room = max(0, most - len(samples)) // 2
            longest = min(room, int(self.spec.silence.max_seconds * self.sampling_rate))
            before, after = (
                _SILENCE_LEVEL * rng.standard_normal(int(length)) for length in rng.integers(0, longest + 1, size=2)
            )
            samples = np.concatenate([before, samples, after]).astype(np.float32)
        if self.spec.noise is not None and rng.random() < self.spec.noise.probability:
            samples = add_noise(samples, self.spec.noise, rng)
        return samples

    def spectrogram(self, features: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """SpecAugment on (mel_bins, frames); a masked place takes the spectrogram's mean."""
        return features if self.spec.spec_augment is None else mask_spectrogram(features, self.spec.spec_augment, rng)


def change_speed(samples: np.ndarray, factor: float, sampling_rate: int = RATE) -> np.ndarray:
    """Speech played `factor` times as fast, pitch included (Ko et al. 2015)."""
    if factor == 1:
        return samples
    return np.asarray(soxr.resample(samples, sampling_rate * factor, sampling_rate), dtype=np.float32)


def add_noise(samples: np.ndarray, spec: NoiseAugment, rng: np.random.Generator) -> np.ndarray:
    """`samples` with pink noise, or a stretch of a random file, at a level drawn from `spec.snr_db`."""
    if spec.folder is None:
        noise = pink_noise(len(samples), rng)
    else:
        recording = _read_noise(str(rng.choice(noise_files(spec.folder))))
        start = int(rng.integers(0, max(1, len(recording) - len(samples) + 1)))
        noise = np.resize(recording[start:], len(samples))
    power = float(np.mean(noise**2))
    if power == 0:
        return samples
    snr_db = rng.uniform(spec.snr_db[0], spec.snr_db[1])
    level = np.sqrt(float(np.mean(samples**2)) / power / 10 ** (snr_db / 10))
    return (samples + level * noise).astype(np.float32)


def pink_noise(length: int, rng: np.random.Generator) -> np.ndarray:
    """Noise whose power falls by 3 dB an octave, (length,)."""
    spectrum = np.fft.rfft(rng.standard_normal(length))
    spectrum /= np.sqrt(np.maximum(np.arange(len(spectrum)), 1))
    return np.fft.irfft(spectrum, length).astype(np.float32)


def mask_spectrogram(features: np.ndarray, spec: SpecAugment, rng: np.random.Generator) -> np.ndarray:
    """`features` (mel_bins, frames) with random bands of time and frequency set to its mean."""
    features = features.copy()
    mean = features.mean()
    bins, frames = features.shape
    widest = min(spec.time_width, int(spec.max_time_fraction * frames))
    for _ in range(spec.time_masks):
        width = int(rng.integers(0, widest + 1))
        start = int(rng.integers(0, frames - width + 1))
        features[:, start : start + width] = mean
    for _ in range(spec.frequency_masks):
        width = int(rng.integers(0, min(spec.frequency_width, bins) + 1))
        start = int(rng.integers(0, bins - width + 1))
        features[start : start + width] = mean
    return features


@lru_cache(maxsize=8)
def noise_files(folder: str) -> tuple[str, ...]:
    """The sound files under `folder` whose header can be read, the others told; none is an error."""
    named = sorted(str(path) for path in Path(folder).expanduser().rglob("*") if path.suffix.lower() in SOUND_SUFFIXES)
    found = [path for path in named if _has_header(path)]
    if lost := sorted(set(named) - set(found)):
        logger.warning(
            f"augmentation.noise.folder: {len(lost)} of {len(named)} files are no sound and left out, the first {lost[0]!r}."
        )
    if not found:
        kinds = ", ".join(suffix[1:] for suffix in SOUND_SUFFIXES)
        raise UserError(f"augmentation.noise.folder={folder!r} holds no {kinds} file that can be read.")
    return tuple(found)


def _has_header(path: str) -> bool:
    try:
        return bool(soundfile.info(path).frames)
    except (soundfile.LibsndfileError, RuntimeError, OSError):
        return False


@lru_cache(maxsize=64)
def _read_noise(path: str) -> np.ndarray:
    """A recording of noise; silence, which adds nothing, in place of one that is damaged behind its header."""
    try:
        return load_audio(path)
    except ValueError as error:
        logger.warning(f"{error} Utterances that are to have this noise get none.")
        return np.zeros(1, dtype=np.float32)
