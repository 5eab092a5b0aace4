"""
The warm start: before the run, the projector learns by CTC to write the transcript in the LLM's own token embeddings.

Without it an LLM answers from its prior for hundreds of steps before it hears anything. It is a short training run of its own,
by the run's own trainer (checkpoints, exact resume, early stopping), on encoder states that are computed once. The LLM does
nothing in it but lend its embeddings.
"""

import dataclasses
import hashlib
import json
import logging
import shutil
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from torch import nn
from transformers import PrinterCallback

from modeling_slam_asr import SlamAsrForConditionalGeneration, SlamAsrProcessor
from modeling_slam_asr.projector_slam_asr import CtcScores, build_projector
from trainers.data.batching import EpochBatchSampler
from trainers.data.collator import SpeechCollator
from trainers.errors import UserError
from trainers.feature_cache import build_cache
from trainers.files import lock_file, read_object, write_json
from trainers.provenance import WarmStartRecord
from trainers.recipe import Recipe, WarmStartSpec
from trainers.training.arguments import training_arguments
from trainers.training.callbacks import EarlyStopping, StopOnTermination, history
from trainers.training.checkpoints import (
    TRAINABLE,
    last_checkpoint,
    list_checkpoints,
    load_trainable,
    remove,
    remove_incomplete,
    write_state,
)
from trainers.training.telling import Progress
from trainers.training.trainer import (
    NOT_FOR_FORWARD,
    SlamAsrTrainer,
    is_cached,
    utterance_seconds,
    utterance_transcripts,
)

logger = logging.getLogger(__name__)

RECORD = "warm_start.json"
BEGUN = "begun.json"
"""`key`: of the settings and data that the stage in the folder was begun with"""
WEIGHTS = "best"
# What the projector of a warm start depends on; runs that agree in these can share it.
SHARED_KEYS = (
    "audio_model", "audio_revision", "text_model", "text_revision", "prune_encoder_layers", "projector", "pad_to_30s", "dtype",
    "train", "validation", "warm_start",
)  # fmt: skip
SHARED_SEED = 42  # of warm starts that runs with several seeds share
_CROWDED = 0.05  # of the utterances with more tokens than frames: from here on it is worth a word


class CtcTrainer(SlamAsrTrainer):
    """Trains the projector by CTC alone; an evaluation's WER is that of the greedy CTC transcripts."""

    watched = "eval_loss"

    def prediction_step(
        self, model: nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any
    ) -> tuple[Any, torch.Tensor | None, torch.Tensor | None]:
        """Mean CTC loss a label token, and the greedy CTC transcripts `(batch, tokens)`."""
        inputs = self._prepare_inputs(inputs)
        forward = {name: value for name, value in inputs.items() if name not in NOT_FOR_FORWARD}
        with torch.no_grad(), self.compute_loss_context_manager():
            output = model(**forward, ctc_weight=1.0)
        scores = CtcScores(output.ctc_log_probs, output.ctc_mask)
        tokens = self.unwrapped_model.ctc_sequences(scores, self.processor.tokenizer.eos_token_id)
        return output.loss.detach(), tokens, inputs["labels"]


@dataclass
class WarmStart:
    """
    The warm start of a run, made at most once in `folder`.

    Args:
        recipe: of the run. Its learning rate, batch and steps are not used: the stage has its own.
        datasets: `train` and, for early stopping, `validation`: sound or cached encoder states.
        termination: the run's own, so that SIGTERM saves a checkpoint of the stage too.
    """

    recipe: Recipe
    datasets: dict[str, Any]
    model: SlamAsrForConditionalGeneration
    processor: SlamAsrProcessor
    folder: Path
    termination: StopOnTermination

    def load(self) -> WarmStartRecord:
        """
        Put the warm start's weights into the model's projector, training them first where `folder` has none.

        Raises:
            SystemExit: with code 143 after SIGTERM, when the checkpoint is saved; the next call goes on from it.
            UserError: most transcripts have more tokens than their audio has frames.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        state = PartialState()
        # The processes of a run train together, so one of them holds the lock for all, against other runs.
        with lock_file(self.folder / "lock", wait=True) if state.is_main_process else nullcontext():
            state.wait_for_everyone()
            found = [self.record() is not None]
            if not broadcast_object_list(found)[0]:
                self.train()
            load_projector(self.model, self.folder)
            self.model.freeze()
            record = self.record()
        assert record is not None
        return record

    def discard_another(self) -> None:
        """
        Take away what `folder` holds of a warm start with other settings or data: that of a run which was begun anew before it
        had a checkpoint. For a folder that is the run's own, by the process that has it to itself.
        """
        rows = self.datasets["train"]
        key = shared_key(self.recipe, self.recipe.seed, list(utterance_seconds(rows)), utterance_transcripts(rows))
        self.folder.mkdir(parents=True, exist_ok=True)
        noted = read_object(self.folder / BEGUN).get("key")
        if noted is not None and noted != key:
            logger.warning("The warm start in %s is of other settings or data: it is made anew.", self.folder)
            for path in filter(Path.exists, (self.folder / WEIGHTS, *list_checkpoints(self.folder))):
                remove(path)
            (self.folder / RECORD).unlink(missing_ok=True)
        write_json(self.folder / BEGUN, {"key": key})

    def record(self) -> WarmStartRecord | None:
        """What is known of the warm start in `folder`; None where there is no finished one with its weights."""
        found = read_object(self.folder / RECORD)
        whole = found.keys() == WarmStartRecord.__annotations__.keys() and (self.folder / WEIGHTS / TRAINABLE).is_file()
        return cast(WarmStartRecord, found) if whole else None

    def train(self) -> None:
        """The stage itself; what is there of an interrupted one is gone on with."""
        spec, model = self.spec, self.model
        crowded = self.check_length()
        own = dataclasses.replace(
            self.recipe,
            output_dir=str(self.folder),
            num_epochs=spec.epochs,
            max_steps=None,
            batch_size=spec.batch_size,
            batch_seconds=None,
            batch_tokens=None,
            gradient_accumulation_steps=1,
            learning_rate=spec.learning_rate,
            lora_learning_rate=None,
            weight_decay=0.01,
            max_grad_norm=1.0,
            bf16=None,
            schedule="cosine_with_min_lr",
            warmup_fraction=0.1,
            min_lr_fraction=0.1,
            gradient_checkpointing=False,
            eval_steps=None,
            save_steps=None,
            eval_batch_size=32,
            warm_start=None,
            trainer={},
        )
        self.reset_projector(own.seed)
        data = {role: self.cached(role) for role in ("train", "validation") if self.datasets.get(role) is not None}
        dropouts = [module for module in model.projector.modules() if isinstance(module, nn.Dropout)]
        before = [module.p for module in dropouts]
        for module in dropouts:
            module.p = spec.dropout
        train_projector_alone(model)
        try:
            trainer = self.fit(own, data)
        finally:
            for module, probability in zip(dropouts, before, strict=True):
                module.p = probability
            model.freeze()
        losses = history(trainer.state, "eval_loss")
        best = losses.index(min(losses)) if losses else None
        wers = history(trainer.state, "eval_wer")
        record: WarmStartRecord = {
            "epochs": round(float(trainer.state.epoch or 0), 2),
            "steps": trainer.state.global_step,
            "seconds": round(trainer.train_seconds, 1),
            "classes": len(model.ctc_tokens()),
            "utterances": len(data["train"]),
            "crowded": crowded,
            "ctc_loss": losses[best] if best is not None else None,
            "ctc_wer": wers[best] if best is not None else None,
        }
        if trainer.is_world_process_zero():
            write_state(self.folder, trainer.state)
            write_json(self.folder / RECORD, record)
            for path in list_checkpoints(self.folder):
                remove(path)
            shutil.rmtree(self.folder / "features", ignore_errors=True)
            print(describe(record), flush=True)
        trainer.accelerator.wait_for_everyone()

    def fit(self, own: Recipe, data: dict[str, Any]) -> CtcTrainer:
        """The trained trainer; the best weights by validation loss (the last without one) are in `folder/best`."""
        sampler = like_lengths(own, utterance_seconds(data["train"]))
        validated = data.get("validation") is not None
        callbacks: list[Any] = [self.termination, Progress()]
        if validated and self.spec.stop is not None:
            callbacks.append(EarlyStopping(self.spec.stop, 0.0, CtcTrainer.watched))
        trainer = CtcTrainer(
            self.model,
            training_arguments(own, sampler, validated),
            processor=self.processor,
            collator=SpeechCollator(self.processor),
            eval_collator=SpeechCollator(self.processor),
            train_sampler=sampler,
            ctc_weight=1.0,
            normalizer=own.normalizer,
            language=own.language,
            keep_checkpoints=1,
            best_folder=self.folder / WEIGHTS,
            train_dataset=data["train"],
            eval_dataset=data.get("validation"),
            callbacks=callbacks,
        )
        with PartialState().main_process_first():
            if trainer.is_world_process_zero():
                remove_incomplete(self.folder)
        trainer.remove_callback(PrinterCallback)
        trainer.train_from(last_checkpoint(self.folder))
        self.termination.leave_if_requested(trainer.state)
        if not validated:
            trainer.save_model(str(self.folder / WEIGHTS))
        return trainer

    @property
    def spec(self) -> WarmStartSpec:
        """The recipe's settings of the stage."""
        assert self.recipe.warm_start is not None
        return self.recipe.warm_start

    def reset_projector(self, seed: int) -> None:
        """The projector as it is drawn from `seed`, whatever drew it before: runs that share the stage share its start."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            fresh = build_projector(self.model.config)
        self.model.projector.load_state_dict(fresh.state_dict())

    def check_length(self) -> int:
        """
        How many training utterances have more tokens than frames, and so teach CTC nothing.

        Raises:
            UserError: more than half of them.
        """
        rows = self.datasets["train"]
        geometry = self.processor.audio_geometry
        frames = [geometry.token_count(2 * geometry.encoder_frames(seconds)) for seconds in utterance_seconds(rows)]
        tokens = [self.processor.transcript_ids(text)[:-1] for text in utterance_transcripts(rows)]
        need = [len(row) + sum(a == b for a, b in pairwise(row)) for row in tokens]
        crowded = sum(n > f for n, f in zip(need, frames, strict=True))
        remedy = (
            f"{crowded} of {len(need)} training utterances have more tokens than audio embeddings "
            f"({sum(need) / max(1, sum(frames)):.2f} tokens an embedding in all), and CTC cannot learn them. "
            f"Lower projector.downsample_rate (it is {self.recipe.projector.downsample_rate}): "
            f"{max(1, self.recipe.projector.downsample_rate // 2)} gives twice as many embeddings."
        )
        if crowded > len(need) / 2:
            raise UserError(remedy)
        if crowded > _CROWDED * len(need):
            print(f"Warm start: {remedy}", flush=True)
        return crowded

    def cached(self, role: str) -> Any:
        """The rows of a role as encoder states: as given, or computed (of training speech, `max_hours` of it)."""
        rows = self.datasets[role]
        if is_cached(rows):
            return rows
        if role == "train" and self.spec.max_hours is not None:
            order = np.random.default_rng(self.recipe.seed).permutation(len(rows))
            hours = np.cumsum(np.asarray(utterance_seconds(rows))[order]) / 3600
            rows = rows.select(sorted(order[: max(1, int((hours <= self.spec.max_hours).sum()))].tolist()))
        encoder = self.model.audio_encoder.to(PartialState().device)
        kept = tuple(encoder.kept_layers)
        return build_cache(self.folder / "features", rows, encoder, self.processor, [kept]).dataset(kept)


def train_projector_alone(model: SlamAsrForConditionalGeneration) -> None:
    """Let nothing but the projector be trained, and so saved and loaded."""
    model.requires_grad_(False)
    model.projector.requires_grad_(True)


def load_projector(model: SlamAsrForConditionalGeneration, folder: Path) -> None:
    """Put the weights of the finished warm start in `folder` into a model's projector, which alone can be trained then."""
    train_projector_alone(model)
    load_trainable(model, folder / WEIGHTS)


def like_lengths(recipe: Recipe, seconds: Sequence[float]) -> EpochBatchSampler:
    """
    This process's batches of `recipe.batch_size` utterances of like length.

    CTC learns to align from short utterances: with long ones in each batch, by the second or at random, the loss on 1.8 h of
    English was 17 to 18 after 50 to 70 steps, with 16 utterances of like length 6.
    """
    state = PartialState()
    return EpochBatchSampler(
        len(seconds),
        seed=recipe.seed,
        batch_size=recipe.batch_size,
        costs=list(seconds),
        rank=state.process_index,
        world_size=state.num_processes,
    )


def ctc_tokens(recipe: Recipe, rows: Any, processor: SlamAsrProcessor) -> list[int]:
    """
    The classes of the CTC head: the token ids of the training transcripts and of `warm_start.texts`, in rising order.

    Raises:
        UserError: a text file cannot be read.
    """
    found: set[int] = set()
    for text in _lines(recipe, utterance_transcripts(rows)):
        found.update(processor.transcript_ids(text)[:-1])
    return sorted(found)


def shared_key(recipe: Recipe, *more: Any) -> str:
    """
    SHA-256 of what a warm start depends on, and of `more`; runs with the same can use one folder.

    Compression is no part of it: it shortens what the LLM reads, and in a warm start the LLM reads nothing.
    """
    values = recipe.to_dict()
    values["projector"] = {
        name: value for name, value in values["projector"].items() if not name.startswith("compress")
    }
    content = [{name: values[name] for name in SHARED_KEYS}, *more]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def describe(record: WarmStartRecord) -> str:
    """One line for people."""
    scored = (
        f", CTC loss {record['ctc_loss']:.3f}, greedy WER {100 * (record['ctc_wer'] or 0):.1f} % on validation data"
        if record["ctc_loss"] is not None
        else ""
    )
    return f"Warm start: {record['epochs']:g} epochs ({record['steps']} steps) in {record['seconds']:.0f} s{scored}."


def _lines(recipe: Recipe, rows: Sequence[str]) -> Iterable[str]:
    yield from rows
    spec = recipe.train[0]
    for path in recipe.warm_start.texts if recipe.warm_start is not None else []:
        try:
            lines = Path(path).expanduser().read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"warm_start.texts: {path} cannot be read as UTF-8 text ({error}).") from error
        yield from map(spec.transcript, lines)
