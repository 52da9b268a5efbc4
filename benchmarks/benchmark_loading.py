"""Shows whether reading stays as fast and small when the data grows, and if training waits for it.

Windows are read from Parquet files of random drums, in a stream and from an Arrow file that is
mapped into memory. Each measurement has its own process: see `benchmark_data.py`.
"""

import argparse
import contextlib
import itertools
import multiprocessing
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmark_data import in_new_process, write_demo
from measure import print_figure, print_machine

# As many as are in the shuffle buffer, ten times as many, and all.
SIZES = (10_000, 100_000)
# The smallest size still has the ten shards that `datasets` reads at a time.
SHARD_WINDOWS = 1_000
VALIDATION_WINDOWS = 64
BARS, STEPS_PER_BAR = 4, 16
# How often each drum is hit where the metre is strongest, and the other sixteenths beside that.
DRUM_DENSITY = (0.35, 0.4, 0.5, 0.1, 0.05, 0.05, 0.05, 0.05, 0.3)
METRIC_WEIGHT = (1.0, 0.2, 0.6, 0.2)
BATCH_SIZE = 64
# Shorter readings say little about speed.
LEAST_SECONDS = 5.0
MEMORY_INTERVAL = 0.05  # seconds
WAYS = {"streamed": True, "mapped": False}

CARD = """\
---
configs:
- config_name: 4bar
  data_files:
  - split: train
    path: 4bar/train-*
  - split: validation
    path: 4bar/validation-*
---
"""


def write_corpus(folder: Path, num_windows: int) -> float:
    """Writes a dataset of random windows, in shards of one row group each: seconds."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    from processing import GrooveMIDI

    columns = GrooveMIDI(bars=BARS, steps_per_bar=STEPS_PER_BAR).info.features.arrow_schema

    def as_arrow(field: pa.Field, values: np.ndarray) -> pa.Array:
        array = pa.array(values.ravel())
        for size in reversed(values.shape[1:]):
            offsets = np.arange(0, len(array) + 1, size, dtype=np.int32)
            array = pa.ListArray.from_arrays(pa.array(offsets), array)
        if isinstance(field.type, pa.ExtensionType):
            array = pa.ExtensionArray.from_storage(field.type, array)
        return array

    def write_shard(name: str, size: int) -> None:
        hits = rng.random((size, *chance.shape), np.float32) < chance
        values = {
            "piano_roll": rng.integers(1, 128, hits.shape, np.uint8) * hits,
            "timing": (rng.random(hits.shape, np.float32) - np.float32(0.5)) * hits,
            "bpm": rng.uniform(60, 200, size).astype(np.float32),
            "start_bar": np.arange(size, dtype=np.int32),
        }
        label = np.full(size, name)
        arrays = [as_arrow(column, values.get(column.name, label)) for column in columns]
        path = folder / f"{BARS}bar" / f"{name}.parquet"
        pq.write_table(pa.Table.from_arrays(arrays, schema=columns), path)

    rng = np.random.default_rng(0)
    weights = np.resize(METRIC_WEIGHT, BARS * STEPS_PER_BAR)
    chance = np.outer(DRUM_DENSITY, weights).astype(np.float32)
    start = time.perf_counter()
    (folder / f"{BARS}bar").mkdir(parents=True)
    (folder / "README.md").write_text(CARD)
    write_shard("validation-00000", VALIDATION_WINDOWS)
    for shard, first in enumerate(range(0, num_windows, SHARD_WINDOWS)):
        write_shard(f"train-{shard:05d}", min(SHARD_WINDOWS, num_windows - first))
    return time.perf_counter() - start


def link_part(corpus: Path, part: Path, num_windows: int) -> None:
    """Makes a dataset of the first shards of another, without copies of them."""
    (part / f"{BARS}bar").mkdir(parents=True)
    os.link(corpus / "README.md", part / "README.md")
    shards = sorted(corpus.glob("*/train-*"))[: -(-num_windows // SHARD_WINDOWS)]
    for shard in (*shards, *corpus.glob("*/validation-*")):
        os.link(shard, part / shard.relative_to(corpus))


def set_up(cache_dir: Path) -> None:
    """To be called in a new process before it imports anything that reads data."""
    os.environ["HF_DATASETS_CACHE"] = str(cache_dir)
    # Or workers would start as this process did, and not as they do where a user trains.
    multiprocessing.set_start_method(None, force=True)


def load(corpus: Path, streaming: bool, num_workers: int) -> tuple[Any, float]:
    """The training batches of a dataset, and the seconds that it took to get at them."""
    set_up(corpus.parent / "cache")
    from accelerate import Accelerator
    from accelerate.utils import DataLoaderConfiguration

    from musicvae.data.windows import load_data
    from musicvae.training.arguments import parse_arguments

    options = {
        "data": corpus,
        "streaming": streaming,
        "num_workers": num_workers,
        "batch_size": BATCH_SIZE,
        "max_steps": 1,  # of which reading knows nothing
    }
    arguments = parse_arguments([f"--{name}={value}" for name, value in options.items()])
    accelerator = Accelerator(
        cpu=True, dataloader_config=DataLoaderConfiguration(split_batches=True)
    )
    start = time.perf_counter()
    train_loader, *_ = load_data(accelerator, arguments)
    return train_loader, time.perf_counter() - start


def prepare(corpus: Path) -> float:
    """Makes the Arrow file that is mapped: seconds."""
    _, seconds = load(corpus, streaming=False, num_workers=0)
    return seconds


def read(
    corpus: Path, streaming: bool, num_workers: int, num_windows: int, seconds: float
) -> tuple[float, float, float, float]:
    """Reads every window, or as many as the time allows.

    Returns:
        Windows per second after the first batch, passes over the data, and peak MB of this process
        and its workers together, resident and anonymous.
    """
    with sampled_memory() as samples:
        loader, _ = load(corpus, streaming, num_workers)
        batches, num_read = iter(loader), 0
        next(batches)
        start, elapsed = time.perf_counter(), 0.0
        while elapsed < seconds and (num_read < num_windows or elapsed < LEAST_SECONDS):
            num_read += len(next(batches)["piano_roll"])
            elapsed = time.perf_counter() - start
    return num_read / elapsed, num_read / num_windows, *map(max, zip(*samples, strict=True))


@contextlib.contextmanager
def sampled_memory() -> Iterator[list[tuple[float, float]]]:
    """Samples of `used_memory`, taken while the context is open."""
    samples, stop = [used_memory()], threading.Event()

    def sample() -> None:
        while not stop.wait(MEMORY_INTERVAL):
            samples.append(used_memory())

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield samples
    finally:
        stop.set()
        thread.join()


def used_memory() -> tuple[float, float]:
    """MB of this process and its workers: resident, and of that what no file or other one backs.

    What workers share with this process is counted for each of them.
    """
    import psutil

    process = psutil.Process()
    usages = [one.memory_info() for one in (process, *process.children())]
    resident = sum(usage.rss for usage in usages)
    shared = sum(getattr(usage, "shared", 0) for usage in usages)  # known on Linux alone
    return resident / 1e6, (resident - shared) / 1e6


def wait_for_data(
    data_dir: Path, scratch: Path, streaming: bool, num_workers: int, steps: int
) -> list[float]:
    """Trains the recipe groove_4bar: percent of the time that it waited for data, at each log."""
    set_up(scratch / "cache")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    import train_accelerate
    from musicvae.training.logging import PROJECT

    output_dir = scratch / f"training-{streaming}-{num_workers}"
    options = {
        "config": Path(train_accelerate.__file__).parent / "recipes" / "groove_4bar.yaml",
        "data_dir": data_dir,
        "output_dir": output_dir,
        "streaming": streaming,
        "num_workers": num_workers,
        "max_steps": steps,
    }
    sys.argv[1:] = [f"--{name}={value}" for name, value in options.items()]
    with contextlib.redirect_stdout(sys.stderr):
        train_accelerate.main()
    events = EventAccumulator(str(output_dir / "logs" / PROJECT)).Reload()
    return [100 * event.value for event in events.Scalars("train/data_wait")]


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--windows", type=int, default=1_000_000, help="of random drums (default: 1,000,000)"
    )
    parser.add_argument(
        "--seconds", type=float, default=30, help="that a reading lasts at most (default: 30)"
    )
    parser.add_argument("--data_dir", type=Path, help="Groove's zip or folder (default: the demo)")
    parser.add_argument("--train_steps", type=int, default=60, help="training steps (default: 60)")
    parser.add_argument(
        "--num_workers", type=int, nargs="+", default=[0, 2], help="of each (default: 0 2)"
    )
    arguments = parser.parse_args(argv)
    kinds = list(itertools.product(WAYS.items(), arguments.num_workers))
    print_machine()
    with tempfile.TemporaryDirectory() as folder:
        scratch, data_dir = Path(folder), arguments.data_dir
        corpus = scratch / "corpus"
        seconds = in_new_process(write_corpus, corpus, arguments.windows)
        print_figure(f"{arguments.windows:,} windows written", [seconds], "s")
        for size in sorted({min(size, arguments.windows) for size in (*SIZES, arguments.windows)}):
            part = scratch / f"part-{size}"
            link_part(corpus, part, size)
            seconds = in_new_process(prepare, part)
            print_figure(f"{size:,} windows prepared to be mapped", [seconds], "s")
            for (way, streaming), num_workers in kinds:
                figures = in_new_process(
                    read, part, streaming, num_workers, size, arguments.seconds
                )
                units = ("windows/s", "passes", "MB peak resident", "MB peak anonymous")
                for value, unit in zip(figures, units, strict=True):
                    print_figure(f"{size:,} {way}, {num_workers} workers", [value], unit)
        if data_dir is None:
            data_dir = scratch / "demo_grooves"
            in_new_process(write_demo, data_dir)
        for (way, streaming), num_workers in kinds:
            shares = in_new_process(
                wait_for_data, data_dir, scratch, streaming, num_workers, arguments.train_steps
            )
            print_figure(f"training, {way}, {num_workers} workers", shares, "% waiting for data")


if __name__ == "__main__":
    main()
