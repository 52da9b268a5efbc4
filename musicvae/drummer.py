"""A model and its processor, with the verbs of the command line."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from modeling_musicvae import MusicVAEModel
from processing import MusicVAEProcessor, render, write_wav
from processing.errors import TempoError
from processing.midi_file import MAX_BPM, MIN_BPM
from processing.picture import draw_piano_rolls

from .paths import RELEASED
from .tasks import TASKS

# The released model for each verb.
RELEASES = {task.verb: task.released for task in TASKS.values()}


@dataclass(frozen=True, eq=False)
class Drums:
    """Drums that a model made.

    Attributes:
        piano_roll: uint8 (9, steps), MIDI velocities.
        timing: float32 (9, steps), microtiming in steps.
        bpm: tempo in quarters a minute.
        processor: writes them.
    """

    piano_roll: np.ndarray
    timing: np.ndarray
    bpm: float
    processor: MusicVAEProcessor

    @property
    def num_bars(self) -> int:
        return self.piano_roll.shape[1] // self.processor.steps_per_bar

    @property
    def num_hits(self) -> int:
        return int(np.count_nonzero(self.piano_roll))

    def write(self, path: str | Path) -> None:
        """Writes a MIDI file, replacing it where it exists."""
        self.processor.write(path, self.piano_roll, self.timing, self.bpm)

    def write_wav(self, path: str | Path) -> None:
        """Writes them as sound, see `processing.render`."""
        steps_per_bar = self.processor.steps_per_bar
        write_wav(path, render(self.piano_roll, self.timing, self.bpm, steps_per_bar))

    def draw(self, path: str | Path, title: str = "") -> None:
        """Draws them into a PNG."""
        draw_piano_rolls(
            self.piano_roll[None],
            self.timing[None],
            path,
            titles=[title],
            steps_per_bar=self.processor.steps_per_bar,
        )


class Drummer:
    """A model and its processor, with the verbs of the command line.

    Attributes:
        model: in evaluation mode.
        processor: with the model's bars and grid.
    """

    def __init__(self, model: MusicVAEModel, processor: MusicVAEProcessor):
        self.model = model
        self.processor = processor

    def sample(
        self,
        num_samples: int = 1,
        bars: int | None = None,
        temperature: float = 1.0,
        seed: int = 0,
        attributes: Mapping[str, float] | None = None,
        bpm: float = 100.0,
    ) -> list[Drums]:
        """New grooves; the same seed gives the same ones.

        Args:
            num_samples: grooves to make.
            bars: in each groove; if not given, as many as the model has.
            temperature: see `MusicVAEModel.decode`.
            seed: of all that is random.
            attributes: what is added to the latents: see `MusicVAEModel.add_attribute`.
            bpm: tempo in quarters a minute.

        Raises:
            ValueError: the model is conditioned on drums, or an argument is out of range.
        """
        if self.model.config.is_conditioned:
            raise ValueError(
                "model: found one that is conditioned on drums, expected an unconditional one, as "
                f"the recipe {TASKS['none'].recipe} trains it"
            )
        if not MIN_BPM <= bpm <= MAX_BPM:
            raise TempoError(f"bpm: found {bpm}, expected {MIN_BPM:g} to {MAX_BPM:g}")
        generator = torch.Generator().manual_seed(seed)
        made = self.model.sample(
            num_samples, temperature, generator, bars=bars, attributes=attributes
        ).to_tuple()
        return [
            Drums(roll, timing, bpm, self.processor)
            for roll, timing in zip(*(each.cpu().numpy() for each in made), strict=True)
        ]


def load(name: str = "sample", device: str = "cpu") -> Drummer:
    """A model, ready for the verbs.

    Args:
        name: a verb, for the released model that comes with the package; a model's folder; or its
            name on the Hub.
        device: where the model runs.

    Raises:
        OSError: there is no such model.
        ValueError: the folder is damaged, or there is no such device.
    """
    place = RELEASED / RELEASES[name] if name in RELEASES else name
    try:
        model = MusicVAEModel.from_pretrained(place).eval().to(usable_device(device))
        processor = MusicVAEProcessor.from_pretrained(place)
    except OSError as error:
        raise OSError(
            f"model: found {name}, expected a model folder or the name of one on the Hub: {error}"
        ) from error
    return Drummer(model, processor)


def usable_device(name: str) -> torch.device:
    """The device of this name.

    Raises:
        ValueError: there is none on this machine.
    """
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(f"device: found {name}, expected one of this machine: {error}") from error
    return device
