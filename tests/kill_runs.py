"""Kills one run at seeded moments, resumes it each time, and compares its end with another's.

    python tests/kill_runs.py --kills 100

The kills are spread over making data, training, saving, exporting and pushing to a Hub on the
loopback interface. In the end the run must have the weights of one that was not killed, bit for
bit, its samples, whole models at the Hub, and no file that the other has not. A hundred kills take
two to ten minutes on two cores.
"""

import argparse
import itertools
import logging
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import NamedTuple

from loopback_hub import LoopbackHub, Repository

RUN = {
    "data": "demo",
    "hop_bars": 4,
    "batch_size": 8,
    "eval_steps": 10,
    "save_steps": 1,
    "encoder_hit_dropout": 0.5,
    "velocity_scaling": 0.2,
    "push_to_hub": True,
    "hub_strategy": "every_save",
}


class Moment(NamedTuple):
    """When to kill a run: up to so many seconds after states of its folder, one after the other.

    A state is a pattern of names, and whether one that was not there when the run was started, or
    any, is there, or none.
    """

    states: list[tuple[str, str]]
    seconds: float
    share: float  # of all kills


SAVING, EXPORTING, PUSHING = "checkpoints/.checkpoint-*.tmp", ".model.tmp", "unpublished/step-*"
# In the order in which a run comes to them; the last ones follow its last step. What an earlier
# kill has left is gone before the same is there again.
MOMENTS = {
    "writing data": Moment([(".demo_grooves.tmp", "any")], 0.3, 0.1),
    "reading data": Moment([("demo_grooves/info.csv", "any")], 1.5, 0.1),
    "training": Moment([("checkpoints/checkpoint-*", "new")], 0.5, 0.25),
    "saving": Moment([(SAVING, "none"), (SAVING, "any")], 0.05, 0.2),
    "pushing": Moment([(PUSHING, "none"), (PUSHING, "any")], 0.3, 0.1),
    "exporting": Moment([(EXPORTING, "none"), (EXPORTING, "any")], 0.4, 0.15),
    "pushing last": Moment(
        [(EXPORTING, "none"), (EXPORTING, "any"), (EXPORTING, "none")], 0.3, 0.1
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default: %(default)s)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, LoopbackHub() as hub:
        environment = hub.environment(hub.create_token("ann"), Path(folder, "home"))
        hub.fail("POST", "/(commit|tag)/", "slow", seconds=0.15)  # so that it can be met
        # The processes that train are forked from one that starts with it.
        os.environ |= environment | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
        os.environ["PYTHONWARNINGS"] = "ignore"
        logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
        os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)
        whole, killed = Path(folder, "whole"), Path(folder, "killed")
        settings = RUN | {"max_steps": arguments.kills + 20}
        run_to_its_end(whole, settings)
        started = time.monotonic()
        counts = kill_often(killed, settings, arguments.kills, random.Random(arguments.seed))
        run_to_its_end(killed, settings)
        for name, count in counts.items():
            print(f"{count:6} {name}")
        compare(killed, whole, hub.repo("ann/killed"))
        print(f"The same end as of a run that was not killed; {time.monotonic() - started:.0f} s")


def kill_often(output_dir: Path, settings: dict, kills: int, rng: random.Random) -> Counter:
    """Kills the run, and resumes it; how often while what."""
    counts: Counter = Counter()
    for name, moment in MOMENTS.items():
        for _ in range(round(moment.share * kills)):
            if name == "writing data":
                shutil.rmtree(output_dir / "demo_grooves", ignore_errors=True)
            process = start(output_dir, settings)
            counts[name if kill_at(moment, process, output_dir, rng) else "ended before"] += 1
    return counts


def kill_at(moment: Moment, process: BaseProcess, output_dir: Path, rng: random.Random) -> bool:
    """Kills a process at a moment; False if it ended before."""
    before = set(output_dir.glob("checkpoints/*"))
    while f"process {process.pid} " not in holder(output_dir):
        assert process.is_alive()
        time.sleep(0.001)
    for pattern, expected in moment.states:
        while True:
            found = set(output_dir.glob(pattern))
            if {"any": found, "new": found - before, "none": not found}[expected]:
                break
            if not process.is_alive():
                return False
            time.sleep(0.001)
    process.join(rng.uniform(0, moment.seconds))
    if not process.is_alive():
        return False
    os.killpg(process.pid, signal.SIGKILL)
    process.join()
    return True


def holder(output_dir: Path) -> str:
    """Who trains there; the lock of a process that was killed stays until another takes it."""
    lock = output_dir / ".lock"
    return lock.read_text() if lock.exists() else ""


def start(output_dir: Path, settings: dict) -> BaseProcess:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["training_runs"])
    process = context.Process(target=go_on, args=(output_dir, settings))
    process.start()
    return process


def go_on(output_dir: Path, settings: dict) -> None:
    """Trains from the last checkpoint, if there is one, in a group of processes of its own."""
    from training_runs import train

    from musicvae.training.checkpoints import checkpoints

    os.setsid()
    with open(os.devnull, "w") as null:
        os.dup2(null.fileno(), 1)
        os.dup2(null.fileno(), 2)
    resume = {"resume_from_checkpoint": "latest"} if checkpoints(output_dir) else {}
    train(output_dir, **settings, **resume)


def run_to_its_end(output_dir: Path, settings: dict) -> None:
    process = start(output_dir, settings)
    process.join()
    assert process.exitcode == 0, process.exitcode


def compare(killed: Path, whole: Path, repo: Repository) -> None:
    """Raises `AssertionError` unless both runs have left the same."""
    from training_runs import assert_ends_like, differing_weights

    from musicvae.training.model_folder import model_files

    assert_ends_like(killed, whole)
    assert differing_weights(killed, whole) == []
    for sample in (whole / "samples").iterdir():
        assert (killed / "samples" / sample.name).read_bytes() == sample.read_bytes(), sample
    assert set(names(killed)) == set(names(whole)), set(names(killed)) ^ set(names(whole))
    published = {path.as_posix(): (killed / path).read_bytes() for path in model_files(killed)}
    assert repo.files() == published
    code_and_model = {name for name in published if not name.startswith("logs/")}
    for tag in repo.tags:
        assert code_and_model <= repo.files(tag).keys(), tag


def names(output_dir: Path) -> Iterator[str]:
    """All that is in an output folder; of the logs, each run of a process writes a file."""
    paths = (path.relative_to(output_dir).as_posix() for path in output_dir.rglob("*"))
    return itertools.filterfalse(lambda path: "/events.out" in path, paths)


if __name__ == "__main__":
    main()
