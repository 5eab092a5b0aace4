"""What happens around the training steps: early stopping, stopping on SIGTERM and Ctrl-C."""

import os
import signal
from collections.abc import Sequence
from types import FrameType
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

STOPPING = (signal.SIGTERM, signal.SIGINT)
WER = "eval_wer"


def history(state: TrainerState, metric: str = WER) -> list[float]:
    """A validation figure so far, oldest first."""
    return [entry[metric] for entry in state.log_history if metric in entry]


def is_best(values: Sequence[float]) -> bool:
    """True when the last figure is lower than all before it."""
    return bool(values) and all(values[-1] < earlier for earlier in values[:-1])


def evaluations_without_gain(values: Sequence[float], min_delta: float) -> int:
    """How many evaluations ago the figure last fell by more than `min_delta` below the best counted before."""
    best, since = float("inf"), 0
    for value in values:
        if value < best - min_delta:
            best, since = value, 0
        else:
            since += 1
    return since


class EarlyStopping(TrainerCallback):
    """Stops when `patience` evaluations in a row bring no gain of `min_delta` in `metric`. It has no state but the log's."""

    def __init__(self, patience: int, min_delta: float, metric: str = WER) -> None:
        self.patience, self.min_delta, self.metric = patience, min_delta, metric

    def stopped(self, state: TrainerState) -> bool:
        """Whether the log says that the run is over."""
        return evaluations_without_gain(history(state, self.metric), self.min_delta) >= self.patience

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if self.stopped(state):
            control.should_training_stop = True
            control.should_save = True


class StopOnTermination(TrainerCallback):
    """On SIGTERM and Ctrl-C: finish the step (and an evaluation due with it), save a checkpoint, stop.

    Processes of one run agree after each step, so that all save at the same one. Outside training both leave at once, and
    so does a second Ctrl-C; the checkpoints that are whole then stay.

    Attributes:
        requested: the number of the signal that asked to stop; 0 before.
    """

    def __init__(self) -> None:
        self.requested = 0
        self.training = False

    def install(self) -> None:
        """Take over the signals for this process."""
        for number in STOPPING:
            signal.signal(number, self._handle)

    def leave_if_requested(self, state: TrainerState) -> None:
        """Leave the process, with the exit code of a shell, once training has ended because it was asked to."""
        if self.requested:
            if state.is_world_process_zero:
                by = signal.Signals(self.requested).name
                print(f"Stopped by {by} after step {state.global_step}; its checkpoint is saved.", flush=True)
            raise SystemExit(128 + self.requested)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        again = bool(self.requested)
        self.requested = number
        if number == signal.SIGINT and (again or not self.training):
            raise KeyboardInterrupt
        if not self.training:
            raise SystemExit(128 + number)
        if number == signal.SIGINT:  # printing is not safe in a handler
            os.write(2, b"\nStopping after this step, with a checkpoint. Ctrl-C again leaves at once.\n")

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.training = True

    def on_epoch_begin(self, *_: Any, **__: Any) -> None:
        hold_signals(True)  # while the data loader starts its workers, which keep it so

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        hold_signals(False)

    on_epoch_end = on_step_begin

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if args.world_size > 1:
            flag = torch.tensor(self.requested, device=args.device)
            torch.distributed.all_reduce(flag, op=torch.distributed.ReduceOp.MAX)
            self.requested = int(flag.item())
        if self.requested:
            control.should_save = True
            control.should_training_stop = True

    def on_train_end(self, *_: Any, **__: Any) -> None:
        self.training = False


def hold_signals(hold: bool) -> None:
    """Hold SIGTERM and Ctrl-C back in this thread, or let them through; what came meanwhile is then delivered.

    Processes started while they are held never see them. A scheduler signals every process of a job, a terminal every
    process of its foreground, and a data loader's worker that died of it would take the checkpoint with it.
    """
    if hasattr(signal, "pthread_sigmask"):  # not on Windows
        signal.pthread_sigmask(signal.SIG_BLOCK if hold else signal.SIG_UNBLOCK, STOPPING)
