"""Shared by the benchmarks; it imports no large library, see `benchmark_data.py`."""

import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path


def print_machine(num_threads: int | None = None) -> None:
    """Prints what the figures depend on: processor, cores, versions and torch's threads."""
    libraries = [f"{name} {version(name)}" for name in ("torch", "datasets")]
    print(f"{cpu_model()}, {os.cpu_count()} cores, {platform.system()} {platform.machine()}")
    print(", ".join([f"Python {platform.python_version()}", *libraries]))
    if num_threads is not None:
        print(f"{num_threads} torch threads")


def cpu_model() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    models = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.processor())


def print_figure(label: str, values: Sequence[float], unit: str) -> None:
    """Prints the median of repeated measurements, with the smallest and the largest."""
    median, low, high = statistics.median(values), min(values), max(values)
    print(f"{label:<58}{median:8.4g} ({low:.4g} to {high:.4g}) {unit}", flush=True)


def time_in_turn(functions: Sequence[Callable[[], object]], repetitions: int) -> list[list[float]]:
    """Seconds that each function takes, each time, after a run that is not counted.

    They take turns, so that whatever else the machine does slows all of them alike.
    """
    for function in functions:
        function()
    seconds = [[] for _ in functions]
    for _ in range(repetitions):
        for function, durations in zip(functions, seconds, strict=True):
            start = time.perf_counter()
            function()
            durations.append(time.perf_counter() - start)
    return seconds
