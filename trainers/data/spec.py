"""What a recipe says about data: where utterances come from, which are kept, how they are varied."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from trainers.data.kinds import KIND_NAMES
from trainers.data.text import normalize_transcript
from trainers.errors import UserError
from trainers.recipes.checked_dataclasses import check_numbers

if TYPE_CHECKING:  # a type checker cannot read the table
    DataFormat = str
else:
    DataFormat = Literal[("auto", *KIND_NAMES)]

NON_SPEECH = "non_speech"


@dataclass
class DataSpec:
    """One source of utterances.

    `dataset` is a Hub data-set id, a folder, a manifest (JSON lines, csv, tsv, parquet), `embedded` (the corpus
    synthesised on the spot), a text file (spoken by eSpeak NG) or `non_speech` (noise, hum and music made on the spot, with empty
    transcripts). `language` is that of all its rows; without it each row's own counts. `audio_root` is the folder that rows'
    files are named from, and must lie in. `segments` says whether rows' `start` and `end` (or keys like these) name a part of
    their recording, or are left alone.
    Durations are seconds; text lengths are characters after normalisation. `max_samples` and `max_hours` take a seeded
    choice; `max_shards` reads only the first tar files of a Common Voice split. `verify` says how damage is looked for:
    `decode` reads every recording once, `header` trusts the files' headers and reads only what has none.
    """

    dataset: str
    format: DataFormat = "auto"
    config: str | None = None
    split: str = "train"
    revision: str | None = None
    streaming: bool = False
    shuffle_buffer: int = 1000
    language: str | None = None
    audio_column: str | None = None
    text_column: str | None = None
    audio_root: str | None = None
    segments: Literal["auto", "ignore"] = "auto"
    lowercase: bool = True
    remove_punctuation: bool = True
    keep_characters: str = "'"
    min_duration: float = 0.5
    max_duration: float = 30.0
    min_characters: int = 1
    max_characters: int | None = None
    max_samples: int | None = None
    max_hours: float | None = None
    max_shards: int | None = None
    verify: Literal["decode", "header"] = "decode"

    def __post_init__(self) -> None:
        if not self.dataset:
            raise UserError(
                "dataset is empty: give a Hub data-set id, a folder, a manifest such as train.jsonl, or 'embedded'."
            )
        if not 0 <= self.min_duration < self.max_duration:
            raise UserError(
                f"min_duration={self.min_duration} and max_duration={self.max_duration} leave no utterance: "
                "min_duration must be 0 or more and below max_duration (seconds)."
            )
        if self.dataset == NON_SPEECH:
            self.min_characters = 0  # that is what it is for
        for name in ("max_samples", "max_hours", "max_shards", "max_characters"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise UserError(f"{name}={value} leaves no utterance: give a number above 0, or null for no limit.")

    @property
    def path(self) -> Path:
        """Where the data set lies, if it is a file or folder of this machine."""
        return Path(self.dataset).expanduser()

    def transcript(self, text: str | None) -> str:
        """The text of a row as the model is trained to write it; empty where there is none."""
        return normalize_transcript(
            text or "",
            lowercase=self.lowercase,
            remove_punctuation=self.remove_punctuation,
            keep_characters=self.keep_characters,
        )

    def language_of(self, row: str | None) -> str | None:
        """The language of a row that gives this one itself, or none."""
        return self.language or row

    @property
    def has_splits(self) -> bool:
        """Whether `split` chooses among the utterances; a manifest, and a Kaldi folder without such a folder inside, are read whole."""
        path = self.path
        whole = (path / "wav.scp").is_file() and not (path / self.split / "wav.scp").is_file()
        return not whole and (path.suffix.lower() == ".txt" or not path.is_file())

    def may_share(self, other: "DataSpec") -> bool:
        """Whether the two name the same data, and neither their languages nor their durations keep them apart."""

        def place(spec: DataSpec) -> tuple[str | None, ...]:
            path = spec.path
            name = str(path.resolve()) if path.exists() else spec.dataset
            return name, spec.config, spec.revision, spec.split if spec.has_splits else None

        languages = {self.language, other.language} - {None}
        apart = self.min_duration >= other.max_duration or other.min_duration >= self.max_duration
        return place(self) == place(other) and len(languages) < 2 and not apart

    def published_name(self) -> dict[str, str]:
        """`name` and, where there are any, `split`, `config` and `revision`: what a published result calls the data.

        Data on this machine go by their file's or folder's own name, without the path.
        """
        local = self.path
        known = {
            "name": local.resolve().name if local.exists() else self.dataset,
            "config": self.config,
            "split": self.split if self.has_splits else None,
            "revision": self.revision,
        }
        return {key: value for key, value in known.items() if value is not None}


@dataclass
class SpecAugment:
    """SpecAugment (Park et al. 2019, arXiv 1904.08779): masks over time (frames of 10 ms) and mel bins."""

    time_masks: int = 2
    time_width: int = 40
    max_time_fraction: float = 0.2
    frequency_masks: int = 2
    frequency_width: int = 15

    def __post_init__(self) -> None:
        check_numbers(
            self,
            "spec_augment.",
            from_zero="time_masks time_width frequency_masks frequency_width",
            fractions="max_time_fraction",
        )


@dataclass
class NoiseAugment:
    """Noise added with `probability` at a signal-to-noise ratio drawn from `snr_db`; pink noise, or files of `folder`."""

    probability: float = 0.5
    snr_db: list[float] = field(default_factory=lambda: [10.0, 30.0])
    folder: str | None = None

    def __post_init__(self) -> None:
        check_numbers(self, "noise.", fractions="probability")
        if len(self.snr_db) != 2 or self.snr_db[0] > self.snr_db[1]:
            raise UserError(f"snr_db={self.snr_db} must be two numbers, the lower first, in decibels.")


@dataclass
class SilenceAugment:
    """Silence (a very low noise) put before and after the utterance with `probability`, each at most `max_seconds`."""

    probability: float = 0.5
    max_seconds: float = 1.0

    def __post_init__(self) -> None:
        check_numbers(self, "silence.", from_zero="max_seconds", fractions="probability")


@dataclass
class AugmentationSpec:
    """Changes to the training audio, all off by default. None can be used with cached encoder states."""

    spec_augment: SpecAugment | None = None
    speed_factors: list[float] | None = None
    noise: NoiseAugment | None = None
    silence: SilenceAugment | None = None

    def __post_init__(self) -> None:
        if self.speed_factors is not None and any(not 0.5 <= factor <= 2 for factor in self.speed_factors):
            raise UserError(f"speed_factors={self.speed_factors}: each factor must lie between 0.5 and 2.")

    @property
    def active(self) -> list[str]:
        """The names of the changes that are on."""
        names = ("spec_augment", "speed_factors", "noise", "silence")
        return [name for name in names if getattr(self, name)]
