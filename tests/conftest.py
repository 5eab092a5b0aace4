"""Tiny random base models and a small corpus of tones, made in place: no download, no mock of the model.

The corpus speaks six "words", each a tone of its own, so that a tiny model can learn it and its transcripts are true.
"""

import csv
import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

SAMPLING_RATE = 16_000
WORDS = {"en": 220.0, "to": 330.0, "tre": 440.0, "fire": 590.0, "fem": 780.0, "don't": 1040.0}
TINY_D_MODEL = 32
TINY_LAYERS = 2

torch.set_num_threads(1)


def speak(words: list[str], seed: int = 0, sampling_rate: int = SAMPLING_RATE) -> np.ndarray:
    """The tones of `words` (0.2 s each, 0.05 s apart) with a little noise: (samples,) float32."""
    rng = np.random.default_rng(seed)
    time = np.arange(int(0.2 * sampling_rate)) / sampling_rate
    gap = np.zeros(int(0.05 * sampling_rate))
    pieces = [piece for word in words for piece in (0.3 * np.sin(2 * np.pi * WORDS[word] * time), gap)]
    wave = np.concatenate(pieces)
    return (wave + 0.003 * rng.standard_normal(len(wave))).astype(np.float32)


@pytest.fixture(scope="session")
def tiny_whisper_encoder_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder-only Whisper folder (2 layers, d 32, 40 mel bins) with keys `model.encoder.*`, as Whisper's own."""
    from safetensors.torch import save_file
    from transformers import WhisperConfig, WhisperFeatureExtractor
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    folder = tmp_path_factory.mktemp("bases") / "tiny-whisper-encoder"
    config = WhisperConfig(
        vocab_size=100,
        num_mel_bins=40,
        d_model=TINY_D_MODEL,
        encoder_layers=TINY_LAYERS,
        decoder_layers=TINY_LAYERS,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=2 * TINY_D_MODEL,
        decoder_ffn_dim=2 * TINY_D_MODEL,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
        begin_suppress_tokens=None,
        architectures=["WhisperForConditionalGeneration"],
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        encoder = WhisperEncoder(config)
    config.save_pretrained(folder)
    tensors = {f"model.encoder.{name}": tensor.contiguous().clone() for name, tensor in encoder.state_dict().items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    WhisperFeatureExtractor(feature_size=40).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_llama_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama (2 layers, d 32), its byte-level BPE trained in place: BOS `<s>`, EOS `</s>`, padding `<pad>`."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("bases") / "tiny-llama"
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<pad>", "<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([" ".join(WORDS), "Transcribe speech to text.\n", "de fem små fugle"] * 20, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>")
    fast.save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=len(fast),
        hidden_size=TINY_D_MODEL,
        intermediate_size=2 * TINY_D_MODEL,
        num_hidden_layers=TINY_LAYERS,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        initializer_range=0.3,  # large enough that a frozen random LLM can be driven to any token
        bos_token_id=fast.bos_token_id,
        eos_token_id=fast.eos_token_id,
        pad_token_id=fast.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def make_tiny_model(tiny_whisper_encoder_dir: Path, tiny_llama_dir: Path) -> Callable[..., Any]:
    """A function that builds a fresh tiny model, the same each time; keyword arguments go to `from_base_models`."""

    def make(**options: Any) -> Any:
        from modeling_slam_asr import SlamAsrForConditionalGeneration

        options = {"projector_hidden_size": TINY_D_MODEL, "dtype": torch.float32, **options}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            return SlamAsrForConditionalGeneration.from_base_models(
                str(tiny_whisper_encoder_dir), str(tiny_llama_dir), **options
            )

    return make


@pytest.fixture(scope="session")
def tiny_model(make_tiny_model: Callable[..., Any]) -> Any:
    """One shared tiny model in eval mode. Read only: a test that trains or edits a model takes `make_tiny_model`."""
    return make_tiny_model().eval()


@pytest.fixture(scope="session")
def tiny_processor(tiny_whisper_encoder_dir: Path, tiny_llama_dir: Path) -> Any:
    """The processor of the tiny model."""
    from modeling_slam_asr import SlamAsrProcessor

    return SlamAsrProcessor.from_base_models(str(tiny_whisper_encoder_dir), str(tiny_llama_dir))


@pytest.fixture(scope="session")
def unreadable(tiny_processor: Any) -> list[int]:
    """Tokens that are not printable text by themselves, to be suppressed where a random model's text is compared."""
    tokenizer = tiny_processor.tokenizer
    texts = [tokenizer.decode([index]) for index in range(len(tokenizer))]
    return [i for i, text in enumerate(texts) if "\ufffd" in text or not text.isprintable()]


@pytest.fixture(scope="session")
def make_pipe(make_tiny_model: Callable[..., Any], tiny_processor: Any) -> Callable[..., Any]:
    """A function that puts a pipeline around a model."""
    from modeling_slam_asr import SlamAsrPipeline

    def make(model: Any = None, **options: Any) -> Any:
        return SlamAsrPipeline(
            model if model is not None else make_tiny_model(),
            tokenizer=tiny_processor.tokenizer,
            feature_extractor=tiny_processor.feature_extractor,
            processor=tiny_processor,
            device="cpu",
            **options,
        )

    return make


@pytest.fixture(scope="session")
def pipe(make_pipe: Callable[..., Any], unreadable: list[int]) -> Any:
    """One shared pipeline; a test that edits the model makes its own."""
    return make_pipe(generate_kwargs={"suppress_tokens": unreadable})


@pytest.fixture(scope="session")
def tiny_audio_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus of tones in AudioFolder form: `train` (16 clips), `test` (6 clips), 0.25 to 1.25 s each.

    Each split has `metadata.csv` (file_name, transcription, language, speaker_id) for AudioFolder and `manifest.jsonl`
    (audio, text, language, speaker_id, duration, id) beside it. Transcripts carry capitals and a full stop.
    """
    import soundfile

    folder = tmp_path_factory.mktemp("tiny_audio")
    rng = np.random.default_rng(4)
    for split, count in (("train", 16), ("test", 6)):
        (folder / split).mkdir()
        rows = []
        for index in range(count):
            words = [str(word) for word in rng.choice(list(WORDS), size=1 + index % 5)]
            wave = speak(words, seed=index)
            name = f"{split}-{index:02d}.wav"
            soundfile.write(folder / split / name, wave, SAMPLING_RATE, subtype="PCM_16")
            text = " ".join(words).capitalize() + "."
            rows.append((name, text, "da", f"speaker{index % 3}", len(wave) / SAMPLING_RATE))
        with (folder / split / "metadata.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["file_name", "transcription", "language", "speaker_id"])
            writer.writerows(row[:4] for row in rows)
        manifest = [
            {"audio": name, "text": text, "language": language, "speaker_id": speaker, "duration": duration, "id": name}
            for name, text, language, speaker, duration in rows
        ]
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in manifest)
        (folder / split / "manifest.jsonl").write_text(lines, encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def tiny_recipe_values(tiny_whisper_encoder_dir: Path, tiny_llama_dir: Path, tiny_audio_dir: Path) -> dict[str, Any]:
    """The plain values of a recipe on the tiny models and the tones: 12 steps of 4."""
    return {
        "name": "tiny",
        "audio_model": str(tiny_whisper_encoder_dir),
        "text_model": str(tiny_llama_dir),
        "projector": {"hidden_size": 32},
        "train": {"dataset": str(tiny_audio_dir), "split": "train", "min_duration": 0.1},
        "validation": {"dataset": str(tiny_audio_dir), "split": "test", "min_duration": 0.1},
        "max_steps": 12,
        "logging_steps": 1,
        "learning_rate": 1e-2,
        "device": "cpu",
        "decoding": {"num_beams": 2, "max_new_tokens": 12},
    }


@pytest.fixture
def tiny_recipe(tiny_recipe_values: dict[str, Any], tmp_path: Path) -> Callable[..., Any]:
    """A function that makes a recipe with keys replaced; `output_dir` is a fresh folder."""

    def make(**changes: Any) -> Any:
        from trainers.recipe import from_dict

        return from_dict({**tiny_recipe_values, "output_dir": str(tmp_path / "run"), **changes})

    return make


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 4 MB of the test's own."""
    yield from _mounted(tmp_path / "disk", "-t", "tmpfs", "-o", "size=4m", "tmpfs")


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    """A file system that nobody may write to, not even root."""
    yield from _mounted(tmp_path / "read-only", "-t", "tmpfs", "-o", "size=4m,ro", "tmpfs")


def _mounted(folder: Path, *options: str) -> Iterator[Path]:
    folder.mkdir()
    mount = shutil.which("mount")
    done = subprocess.run([mount, *options, str(folder)], capture_output=True, text=True) if mount else None
    if done is None or done.returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip() if done else 'no mount'}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill_disk(folder: Path, leave: int) -> Path:
    """Write to the disk of `folder` until `leave` bytes are free; the file that does it."""
    ballast = folder / "ballast"
    ballast.unlink(missing_ok=True)
    ballast.write_bytes(bytes(max(0, shutil.disk_usage(folder).free - leave)))
    return ballast
