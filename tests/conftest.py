"""Shared fixtures; and no test reads or writes the user's caches or asks the Hub."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

# The libraries read these when they are imported, which the test modules do after this one.
_hf_home = tempfile.TemporaryDirectory()
os.environ["HF_HOME"] = _hf_home.name
os.environ["HF_DATASETS_CACHE"] = os.path.join(_hf_home.name, "datasets")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_DISABLE_PROGRESS_BARS"] = "1"


@pytest.fixture(scope="session")
def shared_groove() -> Path:
    """The official archive of the Groove MIDI Dataset's MIDI files."""
    path = Path(__file__).parents[2] / "shared/groove/groove-v1.0.0-midionly.zip"
    if not path.is_file():
        pytest.skip(f"needs the Groove MIDI Dataset in {path}")
    return path


@pytest.fixture(scope="session")
def write_drums() -> Callable[..., None]:
    """Writes a MIDI file of whole bars with random drums, its first hit on the first step."""
    from processing import MusicVAEProcessor

    processor = MusicVAEProcessor(pitch_map="roland_td11")  # whose pitches both maps read alike

    def write(path: Path, bars: int = 4, seed: int = 0, bpm: float = 120) -> None:
        rng = np.random.default_rng(seed)
        shape = (9, bars * 16)
        roll = np.where(rng.random(shape) < 0.2, rng.integers(1, 128, shape), 0).astype(np.uint8)
        roll[0, [0, -1]] = 100
        timing = np.where(roll > 0, rng.uniform(-0.4, 0.4, shape), 0).astype(np.float32)
        timing[:, 0] = 0
        path.parent.mkdir(parents=True, exist_ok=True)
        processor.decode(roll, timing, bpm=bpm).write(str(path))

    return write
