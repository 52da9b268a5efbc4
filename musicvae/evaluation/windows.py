"""Drums and what is known of them: all windows of a split at once, or new drums."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..data.windows import load_windows


@dataclass
class Windows:
    """Drums and what is known of them.

    Attributes:
        piano_roll: uint8 (windows, 9, steps), MIDI velocities.
        timing: float32 (windows, 9, steps), in steps.
        bpm: float32 (windows,), quarter notes a minute.
        style: of each window, such as "funk/groove1"; "" where it is not known.
        file: int64 (windows,), the number of the recording that each is from.
    """

    piano_roll: torch.Tensor
    timing: torch.Tensor
    bpm: torch.Tensor
    style: list[str]
    file: torch.Tensor

    @classmethod
    def load(cls, split: str, **source: Any) -> "Windows":
        """All windows of a split.

        Args:
            split: "train", "validation" or "test".
            **source: see `load_windows`.
        """
        columns = load_windows(split, **source)[:]
        _, files = np.unique(columns["midi_filename"], return_inverse=True)
        return cls(
            torch.from_numpy(columns["piano_roll"].astype(np.uint8)),
            torch.from_numpy(columns["timing"]),
            torch.from_numpy(columns["bpm"]),
            columns["style"].tolist(),
            torch.from_numpy(files),
        )

    def __len__(self) -> int:
        return len(self.piano_roll)

    def select(self, index: Sequence[int]) -> "Windows":
        """The windows of these numbers."""
        index = list(index)
        return Windows(
            self.piano_roll[index],
            self.timing[index],
            self.bpm[index],
            [self.style[i] for i in index],
            self.file[index],
        )

    def batches(self, batch_size: int) -> Iterator["Windows"]:
        """All windows in order, `batch_size` at a time."""
        for start in range(0, len(self), batch_size):
            yield self.select(range(start, min(start + batch_size, len(self))))
