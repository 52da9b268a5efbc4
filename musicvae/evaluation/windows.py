"""The windows of a split, all of them at once."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from modeling_musicvae import MusicVAEConfig
from musicvae.data.windows import load_split, load_splits
from musicvae.training.arguments import (
    ArchitectureArguments,
    Arguments,
    DataArguments,
    HubArguments,
    TrainingArguments,
)


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


def load_windows(
    data: str,
    data_dir: str | None,
    split: str,
    hop_bars: int,
    config: MusicVAEConfig,
) -> Windows:
    """The windows of a split, as long as a model's sequences.

    Args:
        data, data_dir: see `DataArguments`.
        split: "train", "validation" or "test".
        hop_bars: bars between the starts of two windows; `config.bars` for windows that do not
            overlap.
        config: of the model.

    Raises:
        DatasetFolderError: see `GrooveMIDI` and `MidiFolder`.
        ValueError: the split has no windows.
    """
    arguments = Arguments(
        DataArguments(data=data, data_dir=data_dir),
        ArchitectureArguments(bars=config.bars, steps_per_bar=config.steps_per_bar),
        TrainingArguments(),
        HubArguments(),
        command="",
    )
    splits = load_splits(arguments)
    columns = load_split(splits, split, arguments, hop_bars).with_format("numpy")[:]
    _, files = np.unique(columns["midi_filename"], return_inverse=True)
    return Windows(
        torch.from_numpy(columns["piano_roll"].astype(np.uint8)),
        torch.from_numpy(columns["timing"]),
        torch.from_numpy(columns["bpm"]),
        columns["style"].tolist(),
        torch.from_numpy(files),
    )
