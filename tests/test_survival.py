"""Runs that are killed, at any moment, however often, end as if they had not been."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import pytest
from training_runs import (
    PATIENT_THREADS,
    assert_ends_like,
    best_checkpoint,
    checkpoint_names,
    scalars,
    train,
)

from musicvae.training import checkpoints as checkpoint_module
from musicvae.training.checkpoints import check_whole, checkpoints

pytestmark = pytest.mark.slow

NUM_KILLS = 20
# Each of the demo grooves' 146 windows is seen six times, in parts of four and by a worker.
RUN = {
    "data": "groove",
    "hop_bars": 4,
    "batch_size": 8,
    "gradient_accumulation_steps": 2,
    "num_workers": 1,
    "max_steps": 110,
    "eval_steps": 15,
    "save_steps": 1,
    "encoder_hit_dropout": 0.5,
    "velocity_scaling": 0.2,
}
Start = Callable[..., BaseProcess]


def go_on(output_dir: Path, settings: dict, stalled_function: str | None = None) -> None:
    """Trains from the last checkpoint, if there is one, in a group of processes of its own."""
    os.setsid()
    multiprocessing.set_start_method("fork", force=True)  # as elsewhere, for the workers
    if stalled_function is not None:
        stall_at_step_3(output_dir, stalled_function)
    resume = {"resume_from_checkpoint": "latest"} if checkpoints(output_dir) else {}
    train(output_dir, **settings, **resume)


def stall_at_step_3(output_dir: Path, function: str) -> None:
    """Makes a function of the checkpoints wait, once the third one is begun."""
    original = getattr(checkpoint_module, function)

    def stalled(*args, **kwargs):
        if any("checkpoint-3" in name for name in checkpoint_names(output_dir)):
            (output_dir / "stalled").touch()
            signal.pause()
        return original(*args, **kwargs)

    setattr(checkpoint_module, function, stalled)


@pytest.fixture(scope="module")
def start(demo_grooves) -> Iterator[Start]:
    """Starts `go_on` in processes forked from one that has imported everything once."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["training_runs"])
    processes = []

    def start(output_dir: Path, stalled_function: str | None = None, **settings) -> BaseProcess:
        settings = RUN | {"data_dir": demo_grooves} | settings
        process = context.Process(target=go_on, args=(output_dir, settings, stalled_function))
        with pytest.MonkeyPatch.context() as patch:
            for name, value in PATIENT_THREADS.items():
                patch.setenv(name, value)
            patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
            process.start()
        processes.append(process)
        return process

    yield start
    for process in processes:
        if process.is_alive():
            kill(process)


@pytest.fixture(scope="module")
def never_killed(start, tmp_path_factory) -> Path:
    return run_to_its_end(start, tmp_path_factory.mktemp("runs") / "never_killed")


def run_to_its_end(start: Start, output_dir: Path, **settings) -> Path:
    process = start(output_dir, **settings)
    process.join()
    assert process.exitcode == 0
    return output_dir


def wait_for(happened: Callable[[], bool], process: BaseProcess) -> None:
    while not happened():
        assert process.is_alive()
        time.sleep(0.001)


def wait_for_a_checkpoint(output_dir: Path, process: BaseProcess) -> None:
    """Until the next one is begun, or done where one was begun before."""
    folder = output_dir / "checkpoints"
    before = checkpoint_names(output_dir) if folder.exists() else set()
    wait_for(lambda: folder.exists() and checkpoint_names(output_dir) - before, process)


def kill(process: BaseProcess, number: int = signal.SIGKILL) -> None:
    os.killpg(process.pid, number)
    process.join()


def test_a_run_killed_twenty_times_ends_like_one_that_never_was(start, never_killed, tmp_path):
    progress = json.loads((checkpoints(never_killed)[-1] / "progress.json").read_text())
    step_seconds = progress["seconds"] / progress["step"]
    unfinished = 0
    # On average half a step: where the machine is faster than it was, a few more.
    for moment in np.random.default_rng(0).uniform(0, step_seconds, NUM_KILLS):
        process = start(tmp_path)
        wait_for_a_checkpoint(tmp_path, process)
        time.sleep(moment)
        kill(process)
        assert process.exitcode == -signal.SIGKILL
        unfinished += any(name.endswith(".tmp") for name in checkpoint_names(tmp_path))
    assert 0 < unfinished < NUM_KILLS  # kills while it saved and while it trained
    run_to_its_end(start, tmp_path)

    assert_ends_like(tmp_path, never_killed)
    assert checkpoint_names(tmp_path) == checkpoint_names(never_killed)
    assert best_checkpoint(tmp_path)[1] == best_checkpoint(never_killed)[1]
    shown, expected = scalars(tmp_path), scalars(never_killed)
    for values in shown, expected:
        del values["train/sequences_per_second"], values["train/data_wait"]
    assert shown == expected


def test_a_run_killed_in_each_of_its_phases_ends_like_one_that_never_was():
    command = [sys.executable, Path(__file__).with_name("kill_runs.py"), "--kills", "7"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "The same end as of a run that was not killed" in done.stdout


@pytest.mark.parametrize(
    ("function", "newest", "left"),
    [
        ("write_json", 2, {"checkpoint-2", ".checkpoint-3.tmp"}),
        ("put_in_place", 2, {"checkpoint-2", ".checkpoint-3.tmp"}),
        ("discard_folder", 3, {"checkpoint-2", "checkpoint-3"}),
    ],
    ids=["half written", "not yet on the disk", "before the old one is dropped"],
)
def test_a_kill_while_a_checkpoint_is_written_loses_no_whole_one(
    function, newest, left, start, tmp_path
):
    settings = {"max_steps": 5, "eval_steps": 1000}
    killed = tmp_path / "killed"
    process = start(killed, stalled_function=function, **settings)
    wait_for((killed / "stalled").exists, process)
    kill(process)
    assert checkpoint_names(killed) == left
    assert checkpoints(killed)[-1].name == f"checkpoint-{newest}"
    for checkpoint in checkpoints(killed):
        check_whole(checkpoint)
    run_to_its_end(start, killed, **settings)
    assert_ends_like(killed, run_to_its_end(start, tmp_path / "whole", **settings))


def test_a_terminated_run_is_resumed_where_it_was(start, never_killed, tmp_path):
    settings = {"save_steps": 30, "num_workers": 2}
    process = start(tmp_path, **settings)
    wait_for_a_checkpoint(tmp_path, process)
    kill(process, signal.SIGTERM)
    assert process.exitcode == 128 + signal.SIGTERM
    assert int(checkpoints(tmp_path)[-1].name.split("-")[1]) < RUN["max_steps"]
    run_to_its_end(start, tmp_path, **settings)
    assert_ends_like(tmp_path, never_killed)
