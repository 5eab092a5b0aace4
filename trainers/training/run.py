"""One training run, from a recipe to a scored model."""

import dataclasses
import hashlib
import json
import logging
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

from accelerate import PartialState
from accelerate.utils import parse_flag_from_env
from torch.utils.data import IterableDataset
from transformers import PrinterCallback

from modeling_slam_asr import SlamAsrForConditionalGeneration, SlamAsrProcessor
from modeling_slam_asr.configuration_slam_asr import FORMAT_VERSION, PACKAGE_VERSION
from trainers.data.collator import SpeechCollator
from trainers.data.kinds import DATA_KINDS
from trainers.data.prepare import prepare
from trainers.data.sources import detect_format
from trainers.data.streaming import SpeechStream
from trainers.errors import UserError, is_disk_full
from trainers.evaluation import score_rows
from trainers.files import lock_file, read_jsonl, write_json, write_jsonl
from trainers.provenance import DataCounts, HealingRecord, RunMetrics, WarmStartRecord, hardware
from trainers.recipe import EFFECTS, Recipe, changed_keys
from trainers.recipes.checked_dataclasses import nearest
from trainers.recipes.recipe_values import DATA_ROLES
from trainers.results import Metrics
from trainers.training.arguments import check_environment, make_sampler, trained_window, training_arguments
from trainers.training.callbacks import STOPPING, EarlyStopping, StopOnTermination, history
from trainers.training.checkpoints import (
    last_checkpoint,
    list_checkpoints,
    remove_incomplete,
    room_to_write,
    write_state,
)
from trainers.training.data_checks import language_lines, overlap_lines, shared_recordings, without_language
from trainers.training.models import build_model, build_processor
from trainers.training.offload import parked_blocks
from trainers.training.telling import CURVES, EXAMPLES, Progress, ValidationExamples, plot_curves
from trainers.training.trainer import SlamAsrTrainer, is_cached
from trainers.training.warm_start import SHARED_SEED, WarmStart, ctc_tokens

logger = logging.getLogger(__name__)

BEST = "best"
DATA_NOTE = "scan-summary.jsonl"
LOCK = "training.lock"
LOCK_PATIENCE = 10.0  # seconds: a killed run's data workers hold its lock too, and look every 5 s whether it is alive
_PATIENCE = timedelta(hours=3)  # of the other processes, while the main one reads a large corpus


def run_training(
    recipe: Recipe,
    *,
    resume: bool = False,
    datasets: Mapping[str, Any] | None = None,
    data_counts: Mapping[str, DataCounts] | None = None,
    model: SlamAsrForConditionalGeneration | None = None,
    processor: SlamAsrProcessor | None = None,
    warm_start_folder: Path | None = None,
    healing: HealingRecord | None = None,
) -> RunMetrics:
    """Train, keep the best model by validation WER, score it, and write everything to `recipe.output_dir`.

    The folder then holds the model (loadable with `from_pretrained`), `recipe.yaml`, `metrics.json`,
    `predictions.jsonl`, `trainer_state.json`, `curves.png`, and, for a resume, the last checkpoints.

    Args:
        resume: go on from the last whole checkpoint; with none, start; a finished run is not repeated.
        datasets: prepared data sets by role (`train`, `validation`, `test`) in place of those the recipe names: rows of
            `trainers.data.prepare`, or the same with `encoder_hidden_states` (frames, width) in place of `audio`.
        data_counts: what became of the rows of each role when `datasets` were prepared, for `metrics.json` and the model's card.
        model, processor: in place of those the recipe describes.
        warm_start_folder: of a warm start that runs share; the run's own, below `output_dir`, when None.
        healing: what the healing of the given model's encoder took, for the model's card.
    Returns:
        The content of `metrics.json`.
    Raises:
        UserError: the data, the recipe or the folder does not allow the run; or the loss is not finite.
        SystemExit: with code 143 after SIGTERM, 130 after Ctrl-C, when the checkpoint is saved.
    """
    return TrainingRun(recipe, datasets, model, processor, warm_start_folder, data_counts, healing).run(resume)


class TrainingRun:
    """The stages of one run. `run` goes through them; they are apart so that each can be read alone."""

    def __init__(
        self,
        recipe: Recipe,
        datasets: Mapping[str, Any] | None = None,
        model: SlamAsrForConditionalGeneration | None = None,
        processor: SlamAsrProcessor | None = None,
        warm_start_folder: Path | None = None,
        data_counts: Mapping[str, DataCounts] | None = None,
        healing: HealingRecord | None = None,
    ) -> None:
        self.recipe = recipe
        self.output_dir = Path(recipe.output_dir)
        self.datasets = dict(datasets) if datasets is not None else None
        self.model, self.processor = model, processor
        self.data_counts = dict(data_counts or {})
        self.termination = StopOnTermination()
        self.warm_start_folder = warm_start_folder
        self.warm_start_record: WarmStartRecord | None = None
        self.healing = healing

    def run(self, resume: bool) -> RunMetrics:
        """All stages, in order."""
        with room_to_write(self.output_dir, guess=False):
            state = PartialState(cpu=self.recipe.device == "cpu", timeout=_PATIENCE)
            check_environment(self.recipe)
            with self.locked_folder() if state.is_main_process else nullcontext():
                return self.stages(resume, state)

    def stages(self, resume: bool, state: PartialState) -> RunMetrics:
        """What `run` does, in a folder of its own on a disk with room."""
        with state.main_process_first():
            checkpoint, unchanged = self.open_folder(resume, state.is_main_process)
        finished = self.output_dir / "metrics.json"
        if resume and unchanged and finished.is_file():
            return cast(RunMetrics, json.loads(finished.read_text(encoding="utf-8")))
        previous: dict[signal.Signals, Any] = {}
        if threading.current_thread() is threading.main_thread():
            previous = {number: signal.getsignal(number) for number in STOPPING}
            self.termination.install()
        try:
            refuse_missing_data(self.recipe, self.datasets)
            self.processor = self.processor or build_processor(self.recipe)
            self.model = self.model or build_model(self.recipe)  # before the data: a wrong depth shows at once
            with state.main_process_first():
                self.load_data(quiet=not state.is_main_process)
            self.warm_start(checkpoint)
            with self.without_idle_blocks():
                trainer = self.make_trainer()
                train_seconds = self.train(trainer, checkpoint)
                metrics = self.score(trainer)
            return self.finish(trainer, train_seconds, metrics)
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def prepared_trainer(self) -> SlamAsrTrainer:
        """The trainer of this run with its model and the data sets that were given, for more than `run` does with it."""
        self.processor = self.processor or build_processor(self.recipe)
        self.model = self.model or build_model(self.recipe)
        self.load_data(quiet=True)
        self.name_ctc_classes()
        return self.make_trainer()

    # ------------------------------------------------------------------ the folder

    @contextmanager
    def locked_folder(self) -> Iterator[None]:
        """`output_dir` for this run alone; the lock ends with the process, however that ends.

        Raises:
            UserError: another run is at work there, or the folder cannot be written to.
        """
        with ExitStack() as stack:
            with self.writable_folder():
                self.output_dir.mkdir(parents=True, exist_ok=True)
                owned = stack.enter_context(lock_file(self.output_dir / LOCK, wait=False, patience=LOCK_PATIENCE))
            if not owned:
                raise UserError(
                    f"Another process is training in output_dir={self.recipe.output_dir!r} now. Choose another output_dir, or wait "
                    "until it has ended."
                )
            yield

    @contextmanager
    def writable_folder(self) -> Iterator[None]:
        """Around what writes the first files of a run, so that a folder which cannot be written to shows there."""
        try:
            yield
        except OSError as error:
            if is_disk_full(error):
                raise
            raise UserError(
                f"output_dir={self.recipe.output_dir!r} is no folder that can be written to ({error.strerror}). Choose another."
            ) from error

    def open_folder(self, resume: bool, is_main: bool) -> tuple[Path | None, bool]:
        """Check that the folder may be used and write `recipe.yaml`.

        Returns:
            The checkpoint to go on from, if any, and whether the recipe is the one that the folder's run was started with.
        """
        saved = self.output_dir / "recipe.yaml"
        unchanged = resume and saved.is_file()
        if unchanged:
            changed = [key for key in changed_keys(saved, self.recipe) if EFFECTS[key] != "nothing"]
            forbidden = [key for key in changed if EFFECTS[key] == "model"]
            other = [key for key in changed if EFFECTS[key] == "result"]
            if forbidden:
                raise UserError(
                    f"{self.output_dir} holds a run with another {' and '.join(forbidden)} (see {saved}). "
                    "Resume with the recipe it was started with, or choose another output_dir."
                )
            if other and is_main and list_checkpoints(self.output_dir):
                logger.warning(
                    "Resuming with another %s: the result is not that of an uninterrupted run.", ", ".join(other)
                )
            unchanged = not changed
        taken = list_checkpoints(self.output_dir) or (self.output_dir / "metrics.json").is_file()
        if resume and taken and not saved.is_file():
            raise UserError(
                f"{self.output_dir} holds checkpoints or results that are not a run's of this program: it has no recipe.yaml. "
                "Choose another output_dir."
            )
        if is_main:
            if not unchanged and resume:  # the result of the shorter or other run that was here
                (self.output_dir / "metrics.json").unlink(missing_ok=True)
            if not resume and taken:
                raise UserError(
                    f"{self.output_dir} already holds a run. Go on with it (--resume), or choose another output_dir, "
                    "or delete the folder."
                )
            with self.writable_folder():
                self.recipe.save(saved)
            for broken in remove_incomplete(self.output_dir):
                logger.warning("Removed the unfinished checkpoint %s.", broken)
        return (last_checkpoint(self.output_dir) if resume else None), unchanged

    # ------------------------------------------------------------------ data

    def load_data(self, quiet: bool = False) -> None:
        """Read, check and filter the data sets that were not given."""
        recipe = self.recipe
        if self.datasets is not None:
            train_set = self.datasets["train"]
            if is_cached(train_set) and recipe.model.get("encoder_lora") is not None:
                raise UserError(
                    "model.encoder_lora cannot be trained from cached encoder states, which were made without it. "
                    "Train from sound (in a study: cache.enabled: false)."
                )
            if recipe.augmentation.active and is_cached(train_set):
                logger.warning(
                    "augmentation (%s) is off: the encoder states are cached, and changing the audio would change them.",
                    ", ".join(recipe.augmentation.active),
                )
            return
        self.datasets = {}
        for role in DATA_ROLES:
            specs = getattr(recipe, role)
            if not specs:
                continue
            if specs[0].streaming and role == "train":
                self.datasets[role] = SpeechStream(
                    specs[0],
                    seed=recipe.seed,
                    max_bad_fraction=recipe.max_bad_fraction,
                    bad_file_list=self.output_dir / "bad_files.jsonl",
                )
                continue
            dataset, report = prepare(
                specs,
                role,
                seed=recipe.seed,
                max_bad_fraction=recipe.max_bad_fraction,
                output_dir=self.output_dir,
                quiet=quiet,
            )
            self.datasets[role] = dataset
            self.data_counts[role] = report.as_dict()
            if not quiet:
                print(report.describe(), flush=True)
                self.note_data(role, dataset)
        if not quiet:
            whole = {role: rows for role, rows in self.datasets.items() if not isinstance(rows, IterableDataset)}
            unnamed = without_language(whole, recipe.normalizer)
            for line in (*overlap_lines(shared_recordings(whole)), *language_lines(unnamed)):
                logger.warning(line)

    def note_data(self, role: str, dataset: Any) -> None:
        """Keep a fingerprint of the rows, and say so when those of the run that is resumed were others."""
        path = self.output_dir / DATA_NOTE
        try:
            noted = {entry["role"]: entry for entry in read_jsonl(path)}
        except (OSError, ValueError, KeyError, TypeError):
            noted = {}  # none yet, or not ours: then there is nothing to compare with
        columns = (dataset[name] for name in ("id", "seconds", "transcript"))
        rows = hashlib.sha256(json.dumps(list(zip(*columns, strict=True))).encode()).hexdigest()
        before = noted.get(role)
        if before is not None and before.get("sha256") != rows and list_checkpoints(self.output_dir):
            logger.warning(
                "The %s data changed since the run began (%s utterances then, %d now): the result is not that of an "
                "uninterrupted run. Start anew in another output_dir if that matters.",
                role, before.get("utterances"), len(dataset),
            )  # fmt: skip
        noted[role] = {"role": role, "utterances": len(dataset), "sha256": rows}
        write_jsonl(path, noted.values())

    def name_ctc_classes(self) -> None:
        """Tell the CTC head, where the projector has one, which tokens it is to know."""
        assert self.datasets is not None and self.model is not None and self.processor is not None
        config = self.model.config
        if isinstance(self.datasets["train"], IterableDataset):
            return  # a stream's words are not known: all tokens are classes
        if config.projector_ctc and config.projector_ctc_tokens is None:
            config.projector_ctc_tokens = ctc_tokens(self.recipe, self.datasets["train"], self.processor)

    def warm_start(self, checkpoint: Path | None) -> None:
        """The classes of a CTC head, and the projector's CTC warm start where the recipe has one and the run begins."""
        recipe, model, processor = self.recipe, self.model, self.processor
        assert self.datasets is not None and model is not None and processor is not None
        self.name_ctc_classes()
        if not recipe.begins_with_warm_start:
            if recipe.warm_start is not None:
                logger.warning("warm_start is left out: init_from gives a projector that listens already.")
            return
        folder = self.warm_start_folder or self.output_dir / "warm_start"
        if self.warm_start_folder is not None:  # the first of the runs that share it must not decide
            recipe = dataclasses.replace(recipe, seed=SHARED_SEED)
        start = WarmStart(recipe, self.datasets, model, processor, folder, self.termination)
        if self.warm_start_folder is None and checkpoint is None and PartialState().is_main_process:
            start.discard_another()
        self.warm_start_record = start.load() if checkpoint is None else start.record()

    # ------------------------------------------------------------------ the trainer

    def without_idle_blocks(self) -> AbstractContextManager[None]:
        """The encoder's blocks parked where every data set holds cached states; FSDP and DeepSpeed have their own ways."""
        assert self.datasets is not None and self.model is not None
        sharded = any(parse_flag_from_env(f"ACCELERATE_USE_{name}") for name in ("FSDP", "DEEPSPEED"))
        trained = any(parameter.requires_grad for parameter in self.model.audio_encoder.layers.parameters())
        cached = all(rows is None or is_cached(rows) for rows in self.datasets.values())
        if sharded or trained or not cached:
            return nullcontext()
        # Not named as weights: a killed run leaves it, and what is named so in a model's folder counts as the model's.
        return parked_blocks(self.model, self.output_dir / f"encoder-blocks-{PartialState().process_index}.parked")

    def make_trainer(self) -> SlamAsrTrainer:
        """The trainer with model, data, batches and callbacks."""
        assert self.datasets is not None and self.model is not None and self.processor is not None
        recipe = self.recipe
        train_set = self.datasets["train"]
        sampler = make_sampler(recipe, train_set, self.processor)
        cached = is_cached(train_set)
        if not isinstance(train_set, IterableDataset) and recipe.model.get("window_seconds") is None:
            self.model.config.window_seconds = trained_window(train_set)
        args = training_arguments(recipe, sampler, bool(self.datasets.get("validation")))
        language_model = self.model.language_model
        if args.bf16 and args.device.type == "cpu" and language_model.config._attn_implementation == "sdpa":
            # Products and a softmax: the bfloat16 backward pass of the fused attention is slow on CPUs.
            language_model.set_attn_implementation("eager")
        callbacks: list[Any] = [self.termination, Progress()]
        if recipe.early_stopping_patience is not None:
            callbacks.append(EarlyStopping(recipe.early_stopping_patience, recipe.early_stopping_min_delta))
        trainer = SlamAsrTrainer(
            self.model,
            args,
            processor=self.processor,
            collator=SpeechCollator(
                self.processor, augmentation=None if cached else recipe.augmentation, seed=recipe.seed
            ),
            eval_collator=SpeechCollator(self.processor, for_generation=True),
            train_sampler=sampler,
            lora_learning_rate=recipe.lora_learning_rate,
            ctc_weight=recipe.ctc_weight,
            normalizer=recipe.normalizer,
            language=recipe.language,
            keep_checkpoints=recipe.save_total_limit,
            best_folder=self.output_dir / BEST,
            on_validation=ValidationExamples(self.output_dir / EXAMPLES),
            train_dataset=train_set,
            eval_dataset=self.datasets.get("validation"),
            callbacks=callbacks,
        )
        trainer.remove_callback(PrinterCallback)
        return trainer

    # ------------------------------------------------------------------ training, scoring, saving

    def train(self, trainer: SlamAsrTrainer, checkpoint: Path | None) -> float:
        """Train to the end and return the seconds it took; after SIGTERM or Ctrl-C, leave the process."""
        seconds = trainer.train_from(checkpoint)
        self.termination.leave_if_requested(trainer.state)
        return seconds

    def score(self, trainer: SlamAsrTrainer) -> Metrics | None:
        """Load the best weights and score them on the test set (else the validation set); None without either."""
        assert self.datasets is not None
        recipe = self.recipe
        if (self.output_dir / BEST).is_dir() and history(trainer.state):
            trainer.load_weights(self.output_dir / BEST)
        if trainer.is_world_process_zero():
            write_state(self.output_dir, trainer.state)
        role = "test" if self.datasets.get("test") is not None else "validation"
        if self.datasets.get(role) is None:
            return None
        started = time.monotonic()
        rows, loss = trainer.transcribe(self.datasets[role], f"scoring {role}")
        seconds = time.monotonic() - started
        if trainer.is_world_process_zero():
            write_jsonl(self.output_dir / "predictions.jsonl", rows)
        audio_seconds = sum(row["duration"] for row in rows)
        return {
            **score_rows(rows, normalizer=recipe.normalizer, language=recipe.language),
            "split": role,
            "loss": loss,
            "eval_rtfx": audio_seconds / seconds,
            "audio_seconds": audio_seconds,
        }

    def finish(self, trainer: SlamAsrTrainer, train_seconds: float, scores: Metrics | None) -> RunMetrics:
        """Write the model and the results."""
        recipe = self.recipe
        report = trainer.unwrapped_model.parameter_report()
        record: RunMetrics = {
            "name": recipe.name,
            "steps": trainer.state.global_step,
            "train_seconds": round(train_seconds, 3),
            "best_validation_wer": min(history(trainer.state), default=None),
            "total_params": report["total"],
            "trainable_params": report["trainable"],
            "encoder_params": report["encoder"],
            "data": self.data_counts,
            "hardware": hardware(),
            "format_version": FORMAT_VERSION,
            "slam_asr_version": PACKAGE_VERSION,
        }
        if self.warm_start_record is not None:
            record["warm_start"] = self.warm_start_record
        if self.healing is not None:
            record["healing"] = self.healing
        metrics = cast(RunMetrics, {**(scores or {}), **record})
        trainer.save_final(self.output_dir, recipe.checkpoint_form, lambda: build_model(recipe))
        if trainer.is_world_process_zero():
            plot_curves(trainer.state.log_history, self.output_dir / CURVES)
            write_json(self.output_dir / "metrics.json", metrics)
        trainer.accelerator.wait_for_everyone()
        return metrics


def refuse_missing_data(recipe: Recipe, datasets: Mapping[str, Any] | None) -> None:
    """
    Raises:
        UserError: a data set that the recipe names is not there. Said before a model is read.
    """
    for role in DATA_ROLES if datasets is None else ():
        for spec in getattr(recipe, role):
            path = spec.path
            if DATA_KINDS[detect_format(spec)].place == "local" and not path.exists():
                beside = [item.name for item in path.parent.iterdir()] if path.parent.is_dir() else []
                raise UserError(f"{role}: the data set {spec.dataset!r} does not exist.{nearest(path.name, beside)}")
