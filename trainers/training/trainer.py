"""The trainer: `Seq2SeqTrainer` with generation from the prompt, corpus WER, planned batches and exact resume."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import gather_object
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader, IterableDataset
from tqdm import tqdm
from transformers import Seq2SeqTrainer, Seq2SeqTrainingArguments, TrainerState
from transformers.trainer_utils import EvalLoopOutput

from modeling_slam_asr import SlamAsrForConditionalGeneration, SlamAsrProcessor
from trainers.data.batching import EpochBatchSampler, EpochRows, Key, evaluation_batches
from trainers.data.collator import SpeechCollator
from trainers.errors import UserError, listed
from trainers.evaluation import score_rows
from trainers.results import PredictionRow, figures_of, prediction_row
from trainers.training.callbacks import WER, EarlyStopping, history, hold_signals, is_best
from trainers.training.checkpoints import (
    last_checkpoint,
    load_trainable,
    mark_complete,
    read_marker,
    read_state,
    read_trainable,
    room_to_write,
    rotate,
    save_trainable,
    trainable_state,
)

AUDIO_INPUTS = ("input_features", "input_features_mask", "encoder_hidden_states", "encoder_attention_mask")
NOT_FOR_FORWARD = ("ids", "indices", "prompt_input_ids", "prompt_attention_mask")
_NAMED_IDS = 16


class NonFiniteLoss(UserError):
    """The training loss became NaN or infinite; the message names the utterances of the batch."""


class EpochDataLoader(DataLoader[Any]):
    """A data loader that hands the epoch on to its batch sampler."""

    def set_epoch(self, epoch: int) -> None:
        """Called by the trainer before each epoch."""
        self.batch_sampler.set_epoch(epoch)  # type: ignore[union-attr]


class SlamAsrTrainer(Seq2SeqTrainer):
    """Trains the projector and LoRA of a SLAM-ASR model.

    Args:
        processor: the model's processor.
        train_sampler: this process's batches of `train_dataset`; None for an iterable data set.
        collator, eval_collator: make batches of rows; the second with prompts for generation.
        lora_learning_rate: of LoRA's weights; `args.learning_rate` when None.
        ctc_weight: the CTC head's share of the training loss, see `SlamAsrForConditionalGeneration.forward`.
        normalizer: of `trainers.evaluation`, for the validation WER; the language's own when None.
        keep_checkpoints: how many whole checkpoints stay.
        best_folder: where the trained tensors with the lowest validation WER are kept.
        on_validation: called on the main process with the step and the prediction rows of each evaluation in training.
        kwargs: of `Seq2SeqTrainer`. Data sets have rows of `trainers.data.prepare`, or such rows with
            `encoder_hidden_states` in place of `audio`.
    """

    model: SlamAsrForConditionalGeneration
    watched = WER  # the validation figure whose lowest value is kept

    def __init__(
        self,
        model: SlamAsrForConditionalGeneration,
        args: Seq2SeqTrainingArguments,
        *,
        processor: SlamAsrProcessor,
        collator: SpeechCollator,
        eval_collator: SpeechCollator,
        train_sampler: EpochBatchSampler | None = None,
        lora_learning_rate: float | None = None,
        ctc_weight: float = 0.0,
        normalizer: str | None = None,
        language: str | None = None,
        keep_checkpoints: int = 2,
        best_folder: Path | None = None,
        on_validation: Callable[[int, Sequence[PredictionRow]], None] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(model=model, args=args, data_collator=collator, **kwargs)
        self.processor = processor
        self.eval_collator = eval_collator
        self.train_sampler = train_sampler
        self.lora_learning_rate, self.ctc_weight = lora_learning_rate, ctc_weight
        self.normalizer, self.language = normalizer, language
        self.keep_checkpoints, self.best_folder = keep_checkpoints, best_folder
        self.on_validation = on_validation
        self.seconds_before = 0.0
        self._started = time.monotonic()

    # ------------------------------------------------------------------ training

    @property
    def train_seconds(self) -> float:
        """Wall-clock seconds of this run's training, those before a resume included."""
        return self.seconds_before + time.monotonic() - self._started

    def get_train_dataloader(self) -> DataLoader[Any]:
        """The planned batches of this process. They are shared out already, so Accelerate is not asked to do it again."""
        options = self.worker_options() | {
            "collate_fn": self.data_collator,
            "pin_memory": self.args.dataloader_pin_memory and self.args.device.type == "cuda",
        }
        if isinstance(self.train_dataset, IterableDataset):
            return DataLoader(self.train_dataset, batch_size=self.args.per_device_train_batch_size, **options)
        if self.train_sampler is None:
            raise ValueError("A data set with a length needs a train_sampler.")
        return EpochDataLoader(EpochRows(self.train_dataset), batch_sampler=self.train_sampler, **options)

    def worker_options(self) -> dict[str, Any]:
        """How data loaders start their workers, and their own random numbers, which leave the global ones alone."""
        options: dict[str, Any] = {
            "num_workers": self.args.dataloader_num_workers,
            "generator": torch.Generator().manual_seed(self.args.seed),
        }
        if self.args.dataloader_num_workers:
            options["prefetch_factor"] = self.args.dataloader_prefetch_factor
            options["persistent_workers"] = self.args.dataloader_persistent_workers
            options["multiprocessing_context"] = self.args.dataloader_multiprocessing_context
        return options

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """AdamW with up to four groups: projector and LoRA, each with and without weight decay (norms and biases)."""
        if self.optimizer is None:
            trained = self.model if model is None else model
            decayed = set(self.get_decay_parameter_names(trained))
            groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
            for name, parameter in trained.named_parameters():
                if parameter.requires_grad:
                    groups.setdefault(("lora_" in name, name in decayed), []).append(parameter)
            optimizer_class, options = self.get_optimizer_cls_and_kwargs(self.args)
            self.optimizer = optimizer_class(
                [
                    {
                        "params": parameters,
                        "weight_decay": self.args.weight_decay if decay else 0.0,
                        "lr": self.lora_learning_rate
                        if is_lora and self.lora_learning_rate
                        else self.args.learning_rate,
                    }
                    for (is_lora, decay), parameters in sorted(groups.items())
                ],
                **options,
            )
        return self.optimizer

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """The loss over the labelled tokens of the whole (accumulated, distributed) batch.

        Raises:
            NonFiniteLoss: it is NaN or infinite.
        """
        batch = {name: value for name, value in inputs.items() if name not in NOT_FOR_FORWARD}
        batch |= {"return_logits": return_outputs, "ctc_weight": self.ctc_weight}
        result = super().compute_loss(model, batch, return_outputs, num_items_in_batch)
        loss = result[0] if isinstance(result, tuple) else result
        if model.training and not torch.isfinite(loss):
            where = (
                f"in step {self.state.global_step + 1}, on the batch of: {listed(inputs.get('ids', []), _NAMED_IDS)}"
            )
            on = (
                ""
                if last_checkpoint(Path(str(self.args.output_dir))) is None
                else ", and go on from the last checkpoint (`slam-asr train`: --resume)"
            )
            raise NonFiniteLoss(
                f"The loss is {loss.item()} {where}. Training has stopped. Listen to these recordings; if they are sound, "
                f"lower learning_rate or use dtype: float32{on}."
            )
        return result

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Nothing: the library's estimate counts frozen parts as trained and walks all parameters at every step."""
        return 0

    # ------------------------------------------------------------------ evaluation

    def prediction_step(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
        **gen_kwargs: Any,
    ) -> tuple[Any, torch.Tensor | None, torch.Tensor | None]:
        """Mean loss over the labels, and the tokens generated from audio and prompt alone: (batch, new tokens).

        The answer is never shown to `generate`; the decoder is the model's `generation_config`.
        """
        inputs = self._prepare_inputs(inputs)
        forward = {name: value for name, value in inputs.items() if name not in NOT_FOR_FORWARD}
        with torch.no_grad(), self.compute_loss_context_manager():
            loss = model(**forward, return_logits=False).loss.detach() if "labels" in forward else None
            if prediction_loss_only:
                return loss, None, None
            # Sharded processes gather each layer together, so all go on until the last one has ended.
            together: dict[str, Any] = {"synced_gpus": True} if self.is_sharded and self.args.world_size > 1 else {}
            generator = self.model if self.is_fsdp_enabled else self.accelerator.unwrap_model(model)
            tokens = generator.generate(
                input_ids=inputs["prompt_input_ids"],
                attention_mask=inputs["prompt_attention_mask"],
                **{name: inputs[name] for name in AUDIO_INPUTS if name in inputs},
                **together,
                **gen_kwargs,
            )
        return loss, tokens, inputs.get("labels")

    def transcribe(self, dataset: Any, description: str = "transcribing") -> tuple[list[PredictionRow], float]:
        """The model's transcripts of a data set, shared among the processes, and the mean loss over its label tokens.

        Returns:
            One row an utterance in the data set's order, the same in every process: id, reference, prediction, language,
            speaker_id, source, duration (seconds). An utterance that two processes have seen is counted once.
        """
        dataset = EpochRows(dataset)
        costs = utterance_seconds(dataset.dataset)
        batches = evaluation_batches(
            costs, self.args.per_device_eval_batch_size, self.args.process_index, self.args.world_size
        )
        loader = DataLoader(
            dataset,
            batch_sampler=[[Key(index) for index in batch] for batch in batches],
            collate_fn=self.eval_collator,
            **self.worker_options(),
        )
        model = self.model_wrapped if self.is_sharded else self.model
        model.eval()
        found: dict[int, tuple[str, float, int]] = {}
        quiet = True if not self.is_world_process_zero() else None
        hold_signals(True)
        batch_iterator = iter(loader)
        hold_signals(False)
        for batch in tqdm(
            batch_iterator, total=len(batches), desc=description, unit="batch", disable=quiet, leave=False
        ):
            loss, tokens, labels = self.prediction_step(model, batch, prediction_loss_only=False)
            if loss is not None and not torch.isfinite(loss):
                raise NonFiniteLoss(
                    f"The loss in {description} is {loss.item()} after step {self.state.global_step}, on the batch of: "
                    f"{listed(batch['ids'], _NAMED_IDS)}. Listen to these recordings and leave out what is damaged; if they are sound, "
                    "use dtype: float32 or a lower learning_rate."
                )
            texts = self.processor.batch_decode(tokens, skip_special_tokens=True)
            count = int((labels != -100).sum()) if labels is not None else 0
            summed = float(loss) * count if loss is not None else 0.0
            for position, (index, text) in enumerate(zip(batch["indices"], texts, strict=True)):
                # The batch's loss is booked on its first row, so that it too is counted once.
                found[index] = (text, summed, count) if position == 0 else (text, 0.0, 0)
        if self.args.world_size > 1:
            found = dict(gather_object(list(found.items())))
        summed_loss = sum(found[index][1] for index in sorted(found))
        tokens_seen = sum(found[index][2] for index in sorted(found))
        rows: list[PredictionRow] = [
            {**prediction_row(dataset.dataset[index], found[index][0]), "duration": costs[index]}
            for index in range(len(dataset))
        ]
        return rows, summed_loss / max(1, tokens_seen)

    def evaluation_loop(
        self,
        dataloader: DataLoader[Any],
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """Corpus WER, CER and error counts of the data loader's data set, and its loss."""
        rows, loss = self.transcribe(dataloader.dataset, description.lower())
        if self.is_in_train and self.on_validation is not None and self.is_world_process_zero():
            self.on_validation(self.state.global_step, rows)
        scores = score_rows(rows, normalizer=self.normalizer, language=self.language, bootstrap=0)
        # Without a bootstrap there is no interval, so only numbers are left.
        figures: dict[str, Any] = {name: value for name, value in figures_of(scores).items() if value is not None}
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in figures.items()}
        metrics[f"{metric_key_prefix}_loss"] = loss
        return EvalLoopOutput(
            predictions=np.array([row["prediction"] for row in rows]),
            label_ids=None,
            metrics=metrics,
            num_samples=len(rows),
        )

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """As in `Seq2SeqTrainer`; during training, a new lowest WER also keeps the weights in `best_folder`."""
        metrics = super().evaluate(*args, **kwargs)
        if self.is_in_train and self.best_folder is not None and is_best(history(self.state, self.watched)):
            self.save_model(str(self.best_folder))
        return metrics

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader[Any]:
        """A plain carrier of the data set; `transcribe` makes the batches."""
        dataset: Any = self.eval_dataset if eval_dataset is None else eval_dataset
        return DataLoader(dataset, collate_fn=self.eval_collator)

    # ------------------------------------------------------------------ checkpoints

    @property
    def is_sharded(self) -> bool:
        """True when FSDP or DeepSpeed holds the parameters, and so saves and loads them in its own way."""
        return bool(self.is_fsdp_enabled or self.is_deepspeed_enabled)

    @property
    def unwrapped_model(self) -> SlamAsrForConditionalGeneration:
        """The model without what training has put around it."""
        return self.accelerator.unwrap_model(self.model_wrapped)

    def gathered_trainable_state(self) -> dict[str, torch.Tensor]:
        """The trained tensors, whole, on the CPU; every process must call this, the main one gets the result."""
        if not self.is_sharded:
            return trainable_state(self.model)
        names = {name for name, parameter in self.unwrapped_model.named_parameters() if parameter.requires_grad}
        state = self.accelerator.get_state_dict(self.model_wrapped)
        return {name: tensor.cpu().contiguous() for name, tensor in (state or {}).items() if name in names}

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Write what is trained; the frozen parts are in no checkpoint of a run (FSDP and DeepSpeed add their own files)."""
        state = self.gathered_trainable_state()
        folder = Path(output_dir or str(self.args.output_dir))
        if self.args.should_save:
            with room_to_write(folder):
                save_trainable(state, folder)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        with room_to_write(Path(str(self.args.output_dir))):
            super()._save_checkpoint(model, trial)
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            output_dir = Path(str(self.args.output_dir))
            mark_complete(
                output_dir / f"checkpoint-{self.state.global_step}",
                step=self.state.global_step,
                train_seconds=round(self.train_seconds, 3),
            )
            rotate(output_dir, self.keep_checkpoints)
        self.accelerator.wait_for_everyone()

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        if self.is_sharded:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        else:
            load_trainable(self.model, Path(resume_from_checkpoint))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """The stored states, but this run's learning rates and weight decay: the states bring those that it began with."""
        if checkpoint is None or self.is_deepspeed_enabled or not isinstance(self.lr_scheduler, LambdaLR):
            super()._load_optimizer_and_scheduler(checkpoint)
            return
        assert self.optimizer is not None
        wanted = [(group["initial_lr"], group["weight_decay"]) for group in self.optimizer.param_groups]
        super()._load_optimizer_and_scheduler(checkpoint)
        scheduler = self.lr_scheduler
        scheduler.base_lrs = [rate for rate, _ in wanted]
        for group, (rate, decay), share in zip(self.optimizer.param_groups, wanted, scheduler.lr_lambdas, strict=True):
            group |= {"initial_lr": rate, "lr": rate * share(scheduler.last_epoch), "weight_decay": decay}

    def train_from(self, checkpoint: Path | None) -> float:
        """Train to the end, from a whole checkpoint where there is one, and return the seconds of the whole run's training.

        Of a checkpoint that is the end already (the last step, or where early stopping ended the run) the state and weights are taken.
        """
        marker = read_marker(checkpoint) if checkpoint is not None else None
        self.seconds_before = marker["train_seconds"] if marker else 0.0
        if checkpoint is not None and self.is_over(read_state(checkpoint)):
            self.state = read_state(checkpoint)
            self.load_weights(checkpoint)
            return self.seconds_before
        self.train(resume_from_checkpoint=str(checkpoint) if checkpoint is not None else None)
        return self.train_seconds

    def is_over(self, state: TrainerState) -> bool:
        """True when a run with this state has taken its last step, or was ended by early stopping."""
        stoppers = [callback for callback in self.callback_handler.callbacks if isinstance(callback, EarlyStopping)]
        return state.global_step >= self.args.max_steps or any(stopper.stopped(state) for stopper in stoppers)

    def load_weights(self, folder: Path) -> None:
        """Put the trained tensors of a checkpoint (or of `best_folder`) into the model; the optimiser's state is not read."""
        if self.is_fsdp_enabled:
            options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True, strict=False)
            state: dict[str, Any] = read_trainable(folder) if self.is_world_process_zero() else {}
            set_model_state_dict(self.model, state, options=options)
        elif self.is_deepspeed_enabled:
            import deepspeed

            with deepspeed.zero.GatheredParameters(list(self.unwrapped_model.parameters()), modifier_rank=0):
                load_trainable(self.unwrapped_model, folder)
        else:
            load_trainable(self.model, folder)

    def save_final(
        self, folder: Path, checkpoint_form: str, rebuild: Callable[[], SlamAsrForConditionalGeneration]
    ) -> None:
        """Write the model and its processor to `folder`, as `from_pretrained` reads them.

        A sharded model is not taken apart: `rebuild` makes the same one anew on the main process, which takes the weights.
        """
        state = self.gathered_trainable_state() if self.is_sharded else {}
        if self.args.should_save:
            model = self.unwrapped_model
            if self.is_sharded:
                model = rebuild()
                for name, parameter in model.named_parameters():
                    if name in state:
                        parameter.data.copy_(state[name])
            with room_to_write(folder):
                model.save_pretrained(folder, checkpoint_form=checkpoint_form)
                self.processor.save_pretrained(folder)


def utterance_seconds(dataset: Any) -> list[float]:
    """Seconds of each row of a data set."""
    if hasattr(dataset, "column_names") and "seconds" in dataset.column_names:
        return list(dataset["seconds"])
    return [float(dataset[index]["seconds"]) for index in range(len(dataset))]


def utterance_transcripts(dataset: Any) -> list[str]:
    """The transcript of each row of a data set, as the model is trained to write it."""
    if hasattr(dataset, "column_names"):
        return list(dataset["transcript"])
    return [dataset[index]["transcript"] for index in range(len(dataset))]


def is_cached(rows: Any) -> bool:
    """Whether a data set holds encoder states in place of sound."""
    return not isinstance(rows, IterableDataset) and "encoder_hidden_states" in rows[0]
