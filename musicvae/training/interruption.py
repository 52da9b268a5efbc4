"""Ctrl-C and SIGTERM as a checkpoint and an exit."""

import signal
import sys
from typing import Any

import torch
from accelerate import Accelerator

from .arguments import TrainingArguments
from .trackers import end_training

INTERRUPTIONS = (signal.SIGINT, signal.SIGTERM)


class Interruption:
    """Turns Ctrl-C and SIGTERM into a checkpoint and an exit; a second one exits at once."""

    def __init__(self, accelerator: Accelerator):
        self.accelerator = accelerator
        self.signal_number = 0
        self.handlers = {number: signal.signal(number, self.note) for number in INTERRUPTIONS}

    def end(self) -> None:
        """From now on, signals do what they did before."""
        for number, handler in self.handlers.items():
            signal.signal(number, handler)

    def note(self, number: int, frame: Any) -> None:
        self.signal_number = number
        signal.signal(number, signal.SIG_DFL)

    def happened(self) -> bool:
        """True in every process as soon as it is true in one."""
        if self.accelerator.num_processes == 1:
            return self.signal_number > 0
        number = torch.tensor(self.signal_number, device=self.accelerator.device)
        self.signal_number = int(self.accelerator.gather(number[None]).max())
        return self.signal_number > 0

    def exit(self, training: TrainingArguments) -> None:
        self.accelerator.print(
            f"Interrupted and saved. To go on, run the same command with "
            f"--resume_from_checkpoint latest --output_dir {training.output_dir}"
        )
        end_training(self.accelerator)
        sys.exit(128 + self.signal_number)


def ignore_interruption(worker: int) -> None:
    """Ctrl-C reaches the workers too; they must live until the trainer has saved."""
    for number in INTERRUPTIONS:
        signal.signal(number, signal.SIG_IGN)
