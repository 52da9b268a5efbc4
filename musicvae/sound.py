"""Drums that play in a notebook."""

from typing import TYPE_CHECKING, Any

from processing import render
from processing.drum_song import DrumSong
from processing.drum_synthesis import SAMPLE_RATE
from processing.errors import MissingLibraryError

from .drummer import Drums

if TYPE_CHECKING:
    from IPython.display import Audio


def audio(
    drums: Any, bpm: float | None = None, steps_per_bar: int = 16, like: DrumSong | None = None
) -> "Audio":
    """A player for a notebook.

    Args:
        drums: `Drums`, a `DrumSong`, or the output of a model or of a processor, which has a
            `piano_roll` and a `timing`. Windows sound one after another.
        bpm, steps_per_bar, like: see `processing.render`; what `drums` knows of them is taken from
            there.

    Raises:
        MissingLibraryError: IPython is not installed.
        PianoRollError, TempoError, ValueError: see `processing.render`.
    """
    try:
        from IPython.display import Audio
    except ImportError as error:
        raise MissingLibraryError(
            "IPython: found no such library, expected it to play in a notebook: pip install ipython"
        ) from error
    if isinstance(drums, Drums):
        steps_per_bar = drums.processor.steps_per_bar
        bpm = drums.bpm if bpm is None else bpm
        like = drums.song if like is None else like
    elif isinstance(drums, DrumSong):
        like = drums
    sound = render(drums.piano_roll, drums.timing, bpm, steps_per_bar, like)
    return Audio(sound, rate=SAMPLE_RATE, normalize=False)
