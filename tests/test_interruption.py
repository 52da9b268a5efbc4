"""Ctrl-C and SIGTERM: a checkpoint, an exit, and a run that is resumed."""

import os
import signal
from collections.abc import Callable

import pytest
from training_runs import (
    RUN,
    TWO_PROCESSES,
    WEIGHTS,
    assert_ends_like,
    checkpoint_names,
    launch,
    launched,
)

from musicvae.training import trainer
from musicvae.training.arguments import TrainingArguments
from musicvae.training.checkpoints import checkpoints
from musicvae.training.interruption import INTERRUPTIONS


@pytest.fixture
def interrupt(monkeypatch) -> Callable[[int, int], None]:
    """Sends this process a signal during a step, counted from 1."""
    original = trainer.learning_rate

    def interrupt(step: int, number: int) -> None:
        def learning_rate(training: TrainingArguments, steps_done: int) -> float:
            if steps_done == step - 1:
                os.kill(os.getpid(), number)
            return original(training, steps_done)

        monkeypatch.setattr(trainer, "learning_rate", learning_rate)

    return interrupt


@pytest.mark.parametrize("number", INTERRUPTIONS, ids=["SIGINT", "SIGTERM"])
def test_an_interrupted_run_saves_says_how_to_go_on_and_does(
    number, interrupt, train, uninterrupted, tmp_path, capsys
):
    interrupt(9, number)
    with pytest.raises(SystemExit) as stopped:
        train(tmp_path, **RUN)
    assert stopped.value.code == 128 + number
    assert f"--resume_from_checkpoint latest --output_dir {tmp_path}" in capsys.readouterr().out
    assert checkpoint_names(tmp_path) == {"checkpoint-8", "checkpoint-9"}
    assert not (tmp_path / WEIGHTS).exists()
    train(tmp_path, **RUN, resume_from_checkpoint="latest")
    assert_ends_like(tmp_path, uninterrupted)


def test_a_run_interrupted_in_its_last_step_is_done(interrupt, train, tmp_path):
    interrupt(2, signal.SIGINT)
    train(tmp_path, max_steps=2)
    assert (tmp_path / WEIGHTS).is_file()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "launcher_argv", "num_workers"),
    [
        (signal.SIGINT, [], 0),
        (signal.SIGINT, [], 1),
        (signal.SIGTERM, [], 1),
        (signal.SIGTERM, TWO_PROCESSES, 1),
    ],
    ids=["SIGINT", "SIGINT with a worker", "SIGTERM with a worker", "SIGTERM to two processes"],
)
def test_a_signal_to_all_processes_leaves_a_whole_checkpoint(
    number, launcher_argv, num_workers, tmp_path
):
    output_dir = tmp_path / "stopped"
    decay = {"decay_steps": 1_000_000}
    endless = {"max_steps": 1_000_000, "eval_steps": 3, "num_workers": num_workers}
    with launched(output_dir, *launcher_argv, **endless, **decay) as process:
        lines = iter(process.stdout)
        assert any(line.startswith("step 3 ") for line in lines)
        os.killpg(process.pid, number)
        rest = "".join(lines)  # until the last process has ended
    assert process.returncode != 0
    assert "Interrupted and saved" in rest
    checkpoint = checkpoints(output_dir)[-1]
    step = int(checkpoint.name.split("-")[1])
    further = {"max_steps": step + 1, "resume_from_checkpoint": "latest"}
    printed = launch(output_dir, *launcher_argv, **further, **decay)
    assert f"to step {step + 1} from {step}" in printed
