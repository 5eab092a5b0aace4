"""Log-mel features of the pretraining utterances, kept in shards so that an interrupted run loses little."""

import multiprocessing
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from tqdm import tqdm
from transformers import WhisperFeatureExtractor

from trainers.embedded.corpus import Utterance, plan_utterances, process_count
from trainers.embedded.sentences import LANGUAGES
from trainers.files import replacing
from trainers.sound import RATE

SHARD_SIZE = 300
NUM_MEL_BINS = 80
# A tenth of a second: ten mel frames, five encoder frames, one frame of the projector.
PAD_TO_SAMPLES = 1_600


def feature_extractor() -> WhisperFeatureExtractor:
    """Whisper's features with 80 mel bins: the one the encoder is published with."""
    return WhisperFeatureExtractor(feature_size=NUM_MEL_BINS, sampling_rate=RATE)


def log_mel(extractor: WhisperFeatureExtractor, wave: NDArray[np.float32]) -> NDArray[np.float32]:
    """Features of one utterance, `(80, frames)`, 100 frames a second, the audio padded to a whole tenth of a second."""
    padded = np.pad(wave, (0, -len(wave) % PAD_TO_SAMPLES))
    features = extractor(padded, sampling_rate=RATE, padding="do_not_pad", truncation=False, return_tensors="np")
    return np.asarray(features["input_features"][0], dtype=np.float32)


def utterance_features(
    directory: Path, split: str, count: int, seed: int, processes: int | None = None
) -> list[tuple[Utterance, NDArray[np.float16]]]:
    """`count` utterances of a split with their features `(80, frames)`; shards already in `directory` are used again."""
    plan = plan_utterances(split, count, seed, LANGUAGES)
    shards = [plan[start : start + SHARD_SIZE] for start in range(0, len(plan), SHARD_SIZE)]
    # The number of utterances does not name the shard: a longer run extends a shorter one.
    folder = directory / f"{split}-{'-'.join(LANGUAGES)}-{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    jobs = [(items, str(folder / f"{index:04d}-{len(items)}.safetensors")) for index, items in enumerate(shards)]
    missing = [job for job in jobs if not Path(job[1]).is_file()]
    workers = min(process_count(processes), max(1, len(missing)))
    with tqdm(
        total=sum(len(items) for items, _ in missing), desc=f"{split} features", unit="utt", disable=not missing
    ) as progress:
        if workers == 1:
            for job in missing:
                progress.update(_write_shard(job))
        else:
            with multiprocessing.get_context("spawn").Pool(workers) as pool:
                for count in pool.imap_unordered(_write_shard, missing):
                    progress.update(count)
    return [pair for items, path in jobs for pair in zip(items, _read_shard(path), strict=True)]


def _write_shard(job: tuple[list[Utterance], str]) -> int:
    items, path = job
    extractor = feature_extractor()
    features = [log_mel(extractor, item.speak()[0]).astype(np.float16) for item in items]
    lengths = np.array([array.shape[1] for array in features], dtype=np.int64)
    with replacing(path) as temporary:
        save_file({"features": np.concatenate(features, axis=1), "lengths": lengths}, temporary)
    return len(items)


def _read_shard(path: str) -> list[NDArray[np.float16]]:
    tensors = load_file(path)
    return np.split(tensors["features"], np.cumsum(tensors["lengths"])[:-1], axis=1)
