"""Times the way from MIDI files to windows, and measures its memory and that of training on them.

Each measurement has its own process, which imports what it needs. This one imports next to nothing,
because on Linux a process inherits the peak memory of the one that starts it.
"""

import argparse
import contextlib
import itertools
import multiprocessing
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from measure import print_figure, print_machine


def in_new_process(function: Callable, *args: Any) -> Any:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as executor:
        return executor.submit(function, *args).result()


def peak_memory(num_workers: int = 0) -> float:
    """Peak resident MB of this process and of its workers, taken to be as large as the largest.

    That is an upper bound: workers share pages with this process.
    """
    unit = 1 if sys.platform == "darwin" else 1024
    own, largest_worker = (
        resource.getrusage(who).ru_maxrss * unit / 1e6
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    return own + num_workers * largest_worker


def write_demo(folder: Path) -> None:
    from processing.demo_grooves import write_demo_grooves

    write_demo_grooves(folder)


def prepare(data_dir: Path, cache_dir: Path, num_proc: int) -> tuple[float, float, float]:
    """Reads all MIDI files into a new cache: files per second, seconds, peak MB."""
    from processing import GrooveMIDI

    builder = GrooveMIDI(data_dir=data_dir, cache_dir=cache_dir)
    start = time.perf_counter()
    builder.download_and_prepare(num_proc=num_proc)
    seconds = time.perf_counter() - start
    memory = peak_memory(num_workers=num_proc if num_proc > 1 else 0)
    splits = builder._split_generators(dl_manager=None)
    num_files = sum(len(split.gen_kwargs["recordings"]) for split in splits)
    return num_files / seconds, seconds, memory


def load(data_dir: Path, cache_dir: Path) -> float:
    """Seconds that it takes to read every window from the cache."""
    from processing import GrooveMIDI

    start = time.perf_counter()
    builder = GrooveMIDI(data_dir=data_dir, cache_dir=cache_dir)
    builder.download_and_prepare()
    for split in builder.as_dataset().values():
        split.with_format("numpy")[:]
    return time.perf_counter() - start


def train(data_dir: Path, scratch: Path, steps: int) -> tuple[float, int]:
    """Runs the recipe groove_4bar, from MIDI files to the exported model: peak MB, threads."""
    os.environ["HF_DATASETS_CACHE"] = str(scratch / "cache")
    import torch

    import train_accelerate

    recipe = "groove_4bar"
    options = {"config": recipe, "data_dir": data_dir, "output_dir": scratch, "max_steps": steps}
    sys.argv[1:] = [str(word) for name, value in options.items() for word in (f"--{name}", value)]
    with contextlib.redirect_stdout(sys.stderr):
        train_accelerate.main()
    return peak_memory(), torch.get_num_threads()


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data_dir", type=Path, help="Groove's zip or folder (default: the demo)")
    parser.add_argument("--repetitions", type=int, default=3, help="measurements (default: 3)")
    parser.add_argument("--train_steps", type=int, default=20, help="training steps (default: 20)")
    arguments = parser.parse_args(argv)
    print_machine()
    with tempfile.TemporaryDirectory() as folder:
        scratch, data_dir = Path(folder), arguments.data_dir
        if data_dir is None:
            data_dir = scratch / "demo_grooves"
            in_new_process(write_demo, data_dir)
        prepared = {1: [], 2: []}
        for repetition, num_proc in itertools.product(range(arguments.repetitions), prepared):
            cache_dir = scratch / f"cache-{repetition}-{num_proc}"
            figures = in_new_process(prepare, data_dir, cache_dir, num_proc)
            prepared[num_proc].append(figures)
        for num_proc, runs in prepared.items():
            units = (
                "files/s",
                "s",
                "MB peak memory" if num_proc == 1 else "MB peak memory at most",
            )
            for values, unit in zip(zip(*runs, strict=True), units, strict=True):
                print_figure(f"MIDI to windows, num_proc {num_proc}", values, unit)
        loads = [in_new_process(load, data_dir, cache_dir) for _ in range(arguments.repetitions)]
        print_figure("all windows from the cache", loads, "s")
        steps = arguments.train_steps
        memory, num_threads = in_new_process(train, data_dir, scratch, steps)
        print_figure(f"training, {steps} steps, {num_threads} threads", [memory], "MB peak memory")


if __name__ == "__main__":
    main()
