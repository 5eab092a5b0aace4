"""Augmentation and batches of rows."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from trainers.data.augment import Augmenter, add_noise, change_speed, mask_spectrogram, pink_noise
from trainers.data.collator import SpeechCollator
from trainers.data.prepare import prepare
from trainers.data.rows import read_audio
from trainers.data.spec import AugmentationSpec, DataSpec, NoiseAugment, SilenceAugment, SpecAugment
from trainers.errors import UserError

EVERYTHING = AugmentationSpec(
    spec_augment=SpecAugment(),
    speed_factors=[0.9, 1.0, 1.1],
    noise=NoiseAugment(probability=1.0, snr_db=[10, 20]),
    silence=SilenceAugment(probability=1.0, max_seconds=0.5),
)


@pytest.fixture(scope="module")
def rows(tiny_audio_dir: Path) -> list[dict[str, Any]]:
    dataset, _ = prepare([DataSpec(str(tiny_audio_dir), min_duration=0.1)], "train", quiet=True)
    return [{**dataset[index], "index": index, "epoch": 0} for index in range(5)]


def test_augmentation_is_off_by_default() -> None:
    assert AugmentationSpec().active == []
    assert EVERYTHING.active == ["spec_augment", "speed_factors", "noise", "silence"]


def test_augmentation_is_drawn_from_seed_epoch_and_row() -> None:
    wave = np.sin(np.arange(16_000) / 10).astype(np.float32)

    def changed(seed: int, epoch: int, index: int) -> np.ndarray:
        augmenter = Augmenter(EVERYTHING, seed)
        return augmenter.wave(wave, augmenter.generator(epoch, index))

    assert np.array_equal(changed(1, 2, 3), changed(1, 2, 3))
    for other in ((2, 2, 3), (1, 3, 3), (1, 2, 4)):
        result = changed(*other)
        assert len(result) != len(changed(1, 2, 3)) or not np.array_equal(result, changed(1, 2, 3))


def test_speed_changes_length_and_pitch() -> None:
    wave = np.sin(2 * np.pi * 440 * np.arange(16_000) / 16_000).astype(np.float32)
    faster = change_speed(wave, 1.25)
    assert abs(len(faster) - 12_800) <= 1
    assert abs(np.argmax(np.abs(np.fft.rfft(faster))) / (len(faster) / 16_000) - 550) < 2
    assert change_speed(wave, 1.0) is wave


def test_noise_has_the_level_asked_for(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    wave = np.sin(np.arange(16_000) / 10).astype(np.float32)
    soundfile.write(tmp_path / "n.wav", 0.1 * rng.standard_normal(4_000), 16_000)
    for spec in (NoiseAugment(1.0, [12, 12]), NoiseAugment(1.0, [12, 12], folder=str(tmp_path))):
        noise = add_noise(wave, spec, rng) - wave
        assert 10 * np.log10(np.mean(wave**2) / np.mean(noise**2)) == pytest.approx(12, abs=0.1)
    spectrum = np.abs(np.fft.rfft(pink_noise(2**16, rng))) ** 2
    assert 10 * np.log10(spectrum[1_000:2_000].mean() / spectrum[2_000:4_000].mean()) == pytest.approx(3, abs=0.5)


def test_noise_that_cannot_be_read_stops_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    wave = np.sin(np.arange(1_600) / 10).astype(np.float32)
    for name in ("good.wav", "gone.wav"):
        soundfile.write(tmp_path / name, np.full(1_600, 0.1), 16_000)
    (tmp_path / "bad.wav").write_bytes(b"RIFF")
    augmenter = Augmenter(AugmentationSpec(noise=NoiseAugment(1.0, [12, 12], folder=str(tmp_path))), 0)
    (tmp_path / "gone.wav").unlink()
    changed = [bool((augmenter.wave(wave, augmenter.generator(0, index)) != wave).any()) for index in range(20)]
    assert {True, False} == set(changed)
    said = "1 of 3 files are no sound", "gone.wav' does not exist"
    assert all([text in record.getMessage() for record in caplog.records].count(True) == 1 for text in said)


def test_masks_take_the_mean() -> None:
    features = np.random.default_rng(0).standard_normal((40, 200)).astype(np.float32)
    masked = mask_spectrogram(features, SpecAugment(), np.random.default_rng(1))
    changed = masked != features
    assert 0 < changed.mean() < 0.8
    assert np.allclose(masked[changed], features.mean())


def test_augmented_audio_stays_within_30_seconds() -> None:
    spec = AugmentationSpec(speed_factors=[0.8], silence=SilenceAugment(1.0, 5.0))
    augmenter = Augmenter(spec, 0)
    for seconds in (29.5, 24.5, 30.0):
        wave = np.zeros(int(seconds * 16_000), dtype=np.float32)
        assert len(augmenter.wave(wave, augmenter.generator(0, 0))) <= 30 * 16_000


def test_wrong_augmentation_is_explained(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="speed_factors"):
        AugmentationSpec(speed_factors=[3.0])
    with pytest.raises(UserError, match="snr_db"):
        NoiseAugment(snr_db=[20, 10])
    with pytest.raises(UserError, match="holds no wav"):
        Augmenter(AugmentationSpec(noise=NoiseAugment(folder=str(tmp_path))), 0)


def test_a_batch_is_what_the_processor_makes(rows: list[dict[str, Any]], tiny_processor: Any) -> None:
    batch = SpeechCollator(tiny_processor, for_generation=True)(rows)
    waves = [read_audio(row) for row in rows]
    request = tiny_processor.apply_transcription_request(waves, text=[row["transcript"] for row in rows])
    for name, value in request.items():
        assert torch.equal(batch[name], value), name
    prompt = tiny_processor.apply_transcription_request(waves)
    assert torch.equal(batch["prompt_input_ids"], prompt["input_ids"])
    assert torch.equal(batch["prompt_attention_mask"], prompt["attention_mask"])
    assert batch["ids"] == [row["id"] for row in rows]
    assert batch["indices"] == list(range(5))


def test_labels_are_the_transcript_and_the_end_only(rows: list[dict[str, Any]], tiny_processor: Any) -> None:
    batch = SpeechCollator(tiny_processor)(rows)
    for row, labels, ids in zip(rows, batch["labels"], batch["input_ids"], strict=True):
        kept = labels[labels != -100]
        assert torch.equal(kept, ids[labels != -100])
        assert kept[-1] == tiny_processor.tokenizer.eos_token_id
        assert tiny_processor.decode(kept[:-1]) == row["transcript"]


def test_a_row_that_is_not_counted_has_no_loss(
    rows: list[dict[str, Any]], make_tiny_model: Any, tiny_processor: Any
) -> None:
    batch = SpeechCollator(tiny_processor)([{**rows[0], "counted": False}])
    assert (batch["labels"] == -100).all()
    model = make_tiny_model().train()
    names = ("input_features", "input_features_mask", "input_ids", "attention_mask", "labels")
    loss = model(**{name: batch[name] for name in names}, num_items_in_batch=7).loss
    loss.backward()
    assert loss.item() == 0
    assert all((p.grad == 0).all() for p in model.parameters() if p.requires_grad)


def test_cached_states_give_the_loss_and_the_text_of_the_audio(
    rows: list[dict[str, Any]], tiny_model: Any, tiny_processor: Any
) -> None:
    collator = SpeechCollator(tiny_processor, for_generation=True)
    batch = collator(rows)
    mask = batch["input_features_mask"]
    states, frame_mask = tiny_model.audio_encoder.hidden_states_at(batch["input_features"], mask, [2])
    cached = collator(
        [
            {**row, "encoder_hidden_states": states[2][index, frame_mask[index]].detach()}
            for index, row in enumerate(rows)
        ]
    )
    assert "input_features" not in cached
    for name in ("input_ids", "labels", "prompt_input_ids"):
        assert torch.equal(cached[name], batch[name])
    names = ("input_ids", "attention_mask", "labels")
    audio = ("input_features", "input_features_mask")
    encoded = ("encoder_hidden_states", "encoder_attention_mask")
    with torch.no_grad():
        expected = tiny_model(**{name: batch[name] for name in (*names, *audio)}).loss
        found = tiny_model(**{name: cached[name] for name in (*names, *encoded)}).loss
    assert found.item() == pytest.approx(expected.item(), abs=1e-5)


def test_an_augmented_batch_differs_by_epoch_only(rows: list[dict[str, Any]], tiny_processor: Any) -> None:
    collator = SpeechCollator(tiny_processor, augmentation=EVERYTHING, seed=3)
    first, again = collator(rows)["input_features"], collator(rows)["input_features"]
    later = collator([{**row, "epoch": 1} for row in rows])["input_features"]
    assert torch.equal(first, again)
    assert first.shape != later.shape or not torch.equal(first, later)
