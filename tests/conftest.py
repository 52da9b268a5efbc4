"""Shared fixtures; and no test reads or writes the user's caches or asks the Hub."""

import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings

# Hypothesis tries the same examples each time, however long they take on a busy machine.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")

# The libraries read these when they are imported, which the test modules do after this one.
_hf_home = tempfile.TemporaryDirectory()
os.environ["HF_HOME"] = _hf_home.name
os.environ["HF_DATASETS_CACHE"] = os.path.join(_hf_home.name, "datasets")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_DISABLE_PROGRESS_BARS"] = "1"
os.environ["ACCELERATE_USE_CPU"] = "true"  # a GPU need not repeat its bits
if "PYTEST_XDIST_WORKER" in os.environ:  # threads of several would hold each other up
    os.environ |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}

pytest.register_assert_rewrite("browser_page", "training_runs")


@pytest.fixture(scope="session")
def shared_groove() -> Path:
    """The official archive of the Groove MIDI Dataset's MIDI files."""
    shared = Path(__file__).parents[2] / "shared/groove/groove-v1.0.0-midionly.zip"
    path = Path(os.environ.get("GROOVE_ARCHIVE", shared))
    if not path.is_file():
        pytest.skip(f"needs groove-v1.0.0-midionly.zip: set GROOVE_ARCHIVE to its path, not {path}")
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


@pytest.fixture(scope="module")
def one_cpu_thread() -> Iterator[None]:
    import training_runs

    with training_runs.one_cpu_thread():
        yield


@pytest.fixture(scope="session")
def demo_grooves(tmp_path_factory) -> Path:
    from processing.demo_grooves import write_demo_grooves

    return write_demo_grooves(tmp_path_factory.mktemp("data") / "demo_grooves")


@pytest.fixture
def loaders(demo_grooves) -> tuple[Iterable, Iterable]:
    """Training and validation batches of the demo grooves."""
    import training_runs

    return training_runs.loaders(demo_grooves)


@pytest.fixture(scope="session")
def train(demo_grooves) -> Callable[..., Path]:
    """`training_runs.train` on the demo grooves, unless other data is asked for."""
    import training_runs

    return partial(training_runs.train, data="groove", data_dir=demo_grooves)


@pytest.fixture(scope="session")
def uninterrupted(train, tmp_path_factory) -> Path:
    """The folder of a run from its first step to its last; not to be written to."""
    from training_runs import RUN

    return train(tmp_path_factory.mktemp("runs") / "uninterrupted", **RUN)


@pytest.fixture(scope="session")
def quickstart(tmp_path_factory) -> tuple[Path, str]:
    """The output folder of a short quickstart, and what it printed."""
    from training_runs import launch

    output_dir = tmp_path_factory.mktemp("launched") / "quickstart"
    return output_dir, launch(output_dir, max_steps=30, eval_steps=10, learning_rate=0.01)


@pytest.fixture(scope="module")
def running_hub() -> Iterator[Any]:
    """A Hub on the loopback interface, with small pages, so that clients turn them."""
    from loopback_hub import LoopbackHub

    with LoopbackHub(page_size=2) as hub:
        yield hub


@pytest.fixture
def hub(running_hub) -> Iterator[Any]:
    """`running_hub` without faults and requests of other tests."""
    running_hub.requests.clear()
    yield running_hub
    running_hub.heal()


@pytest.fixture(scope="module")
def token(running_hub) -> str:
    """Ann's, who may write."""
    return running_hub.create_token("ann")


@pytest.fixture(scope="module")
def environment(running_hub, token, tmp_path_factory) -> dict[str, str]:
    """In which a process of Ann's speaks to the Hub."""
    return running_hub.environment(token, tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def client(environment) -> Iterator[Any]:
    """Such a process, see `client_process`."""
    from loopback_hub import client_process

    with client_process(environment) as client:
        yield client
