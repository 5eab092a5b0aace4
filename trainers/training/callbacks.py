"""What happens around the training steps: early stopping, stopping on SIGTERM, progress."""

import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import Any

import torch
from tqdm import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

EXIT_TERMINATED = 143  # 128 + SIGTERM, as a shell reports it


def wer_history(state: TrainerState) -> list[float]:
    """The validation WERs so far, oldest first."""
    return [entry["eval_wer"] for entry in state.log_history if "eval_wer" in entry]


def is_best(history: Sequence[float]) -> bool:
    """True when the last WER is lower than all before it."""
    return bool(history) and all(history[-1] < earlier for earlier in history[:-1])


def evaluations_without_gain(history: Sequence[float], min_delta: float) -> int:
    """How many evaluations ago the WER last fell by more than `min_delta` below the best counted before."""
    best, since = float("inf"), 0
    for wer in history:
        if wer < best - min_delta:
            best, since = wer, 0
        else:
            since += 1
    return since


class EarlyStopping(TrainerCallback):
    """Stops when `patience` evaluations in a row bring no gain of `min_delta` WER. It has no state but the log's."""

    def __init__(self, patience: int, min_delta: float) -> None:
        self.patience, self.min_delta = patience, min_delta

    def stopped(self, state: TrainerState) -> bool:
        """Whether the log says that the run is over."""
        return evaluations_without_gain(wer_history(state), self.min_delta) >= self.patience

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if self.stopped(state):
            control.should_training_stop = True
            control.should_save = True


class StopOnTermination(TrainerCallback):
    """On SIGTERM: finish the step (and an evaluation due with it), save a checkpoint, stop.

    Processes of one run agree after each step, so that all save at the same one. Outside training, SIGTERM exits at once.
    """

    def __init__(self) -> None:
        self.requested = False
        self.training = False

    def install(self) -> None:
        """Take over SIGTERM for this process."""
        signal.signal(signal.SIGTERM, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        if not self.training:
            raise SystemExit(EXIT_TERMINATED)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.training = True

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        hold_sigterm(True)  # while the data loader starts its workers, which keep it so

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        hold_sigterm(False)

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        hold_sigterm(False)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if args.world_size > 1:
            flag = torch.tensor(int(self.requested), device=args.device)
            torch.distributed.all_reduce(flag, op=torch.distributed.ReduceOp.MAX)
            self.requested = bool(flag.item())
        if self.requested:
            control.should_save = True
            control.should_training_stop = True

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.training = False


def hold_sigterm(hold: bool) -> None:
    """Hold SIGTERM back in this thread, or let it through; what came meanwhile is then delivered.

    Processes started while it is held never see it. A scheduler signals every process of a job, and a data loader's worker
    that died of it would take the checkpoint with it.
    """
    if hasattr(signal, "pthread_sigmask"):  # not on Windows, where nobody sends it
        signal.pthread_sigmask(signal.SIG_BLOCK if hold else signal.SIG_UNBLOCK, {signal.SIGTERM})


class Progress(TrainerCallback):
    """A bar with loss and WER on a terminal; without one, a line whenever something is logged."""

    def __init__(self) -> None:
        self.bar: tqdm[Any] | None = None
        self.shown: dict[str, str] = {}

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if state.is_world_process_zero and sys.stderr.isatty():
            self.bar = tqdm(total=state.max_steps, initial=state.global_step, desc="training", unit="step")

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if self.bar is not None:
            self.bar.update(state.global_step - self.bar.n)

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        logs = kwargs["logs"]
        if not state.is_world_process_zero or not ({"loss", "eval_wer", "eval_loss"} & logs.keys()):
            return
        for name, key, form in (("loss", "loss", ".3f"), ("val_loss", "eval_loss", ".3f"), ("wer", "eval_wer", ".3f")):
            if key in logs:
                self.shown[name] = format(logs[key], form)
        if self.bar is not None:
            self.bar.set_postfix(self.shown)
        else:
            values = "  ".join(f"{name} {value}" for name, value in self.shown.items())
            print(f"step {state.global_step}/{state.max_steps}  {values}", file=sys.stderr, flush=True)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self.bar is not None:
            self.bar.close()
            self.bar = None
