"""Seeded damage to files and to JSON, and a count of how each damaged file is read."""

import copy
import json
import random
import resource
import signal
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from modeling_musicvae.configuration_musicvae import LOADING_FIELDS

# Values for a place in JSON that expects another, or too much.
ODD_VALUES = [
    *(None, True, False, -1, 0, 1, 2, 1.5, 10**6, 10**30, 1e308, float("nan"), float("inf")),
    *("", "evil", "none", "__import__('os')", "\udcff", "/etc/passwd", "d" * 10_000),
    *([], {}, [1], {"a": 1}, [[]] * 100, [None], [10**9] * 3),
]


def mutated(data: bytes, rng: random.Random, special: Sequence[bytes] = (b"\xff", b"\0")) -> bytes:
    """A file after one to eight changes: bytes flipped, put in, left out, doubled, or cut off.

    Args:
        data: the file.
        rng: of the changes.
        special: bytes to put in.
    """
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        start = rng.randrange(len(changed) + 1)
        end = min(len(changed), start + rng.choice((1, 1, 2, 4, 9, 40)))
        match rng.randrange(7):
            case 0 | 1 if start < len(changed):
                changed[start] = rng.randrange(256)
            case 2 if start < len(changed):
                changed[start] ^= 1 << rng.randrange(8)
            case 3:
                changed[start:start] = rng.choice(special)
            case 4:
                del changed[start:end]
            case 5:
                changed[start:start] = changed[start:end] * rng.choice((1, 1, 30))
            case 6 if rng.random() < 0.2:
                del changed[start:]
            case _:  # no change this time
                pass
    return bytes(changed)


def mutated_json(value: Any, rng: random.Random) -> Any:
    """JSON after one to three changes: values replaced, left out or added, at any depth."""
    value = json.loads(json.dumps(value))
    for _ in range(rng.choice((1, 1, 2, 3))):
        container = rng.choice([found for found in containers(value) if found] or [value])
        if not isinstance(container, dict | list) or not container:
            return odd_value(rng)
        key = rng.choice(list(container) if isinstance(container, dict) else range(len(container)))
        match rng.randrange(6):
            case 0:
                del container[key]
            case 1 if isinstance(container, dict):
                new = rng.choice(["evil", "dtype", "auto_map", *LOADING_FIELDS])
                container[new] = odd_value(rng)
            case 2 if type(container[key]) is int:
                container[key] += rng.choice((-1, 1))
            case _:
                container[key] = odd_value(rng)
    return value


def odd_value(rng: random.Random) -> Any:
    return copy.deepcopy(rng.choice(ODD_VALUES))


def containers(value: Any) -> list:
    """All objects and lists in JSON, itself included."""
    if not isinstance(value, dict | list):
        return []
    children = value.values() if isinstance(value, dict) else value
    return [value, *(found for child in children for found in containers(child))]


def mutated_json_file(data: bytes, rng: random.Random) -> bytes:
    """A file of JSON after changes of its values, or of its bytes, or in another encoding."""
    if rng.random() < 0.3:
        return mutated(data, rng, (b"[", b"{", b"\xff", b"NaN", b"[" * 100_000))
    text = json.dumps(mutated_json(json.loads(data), rng))
    return text.encode(rng.choice(("utf-8", "utf-8", "utf-8", "utf-8", "utf-8-sig", "utf-16")))


class TooMuch(BaseException):
    """An action that takes more time than it may; nothing that is tested catches it."""


@contextmanager
def limits(seconds: float = 1.0, megabytes: int = 500) -> Iterator[None]:
    """Ends an action that takes more processor time or memory than it may with an error."""

    def too_slow(*_: object) -> None:
        raise TooMuch(f"more than {seconds} s of processor time")

    pages = int(Path("/proc/self/statm").read_text().split()[0])
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    handler = signal.signal(signal.SIGPROF, too_slow)
    resource.setrlimit(
        resource.RLIMIT_AS, (pages * resource.getpagesize() + megabytes * 10**6, hard)
    )
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, handler)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def outcomes(items: Iterable, outcome: Callable[..., str], title: str) -> Counter:
    """How often each outcome is met; printed with the most processor time and memory."""
    counts, longest, before = Counter(), 0.0, peak_memory()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        for item in items:
            start = time.process_time()
            counts[outcome(item)] += 1
            longest = max(longest, time.process_time() - start)
    grown = peak_memory() - before
    print(f"\n{title}: {counts.total()}, at most {longest:.2f} s and {grown} MB")
    for name, count in counts.most_common():
        print(f"  {count:6} {name}")
    assert grown < 500
    return counts


def peak_memory() -> int:
    """The most memory that the process has had, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
