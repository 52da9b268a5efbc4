"""Checkpoints: which stay, going on from them bit for bit, and what is refused."""

from pathlib import Path

import pytest
from accelerate import Accelerator
from training_runs import (
    RUN,
    assert_ends_like,
    best_checkpoint,
    checkpoint_names,
    parse,
    tiny_model,
)

from training.checkpoints import Progress, checkpoints, save_checkpoint


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_stopped_run_goes_on_as_if_it_had_not_stopped(train, uninterrupted, tmp_path):
    train(tmp_path, **RUN | {"max_steps": 9})
    train(tmp_path, **RUN, resume_from_checkpoint="latest")
    assert_ends_like(tmp_path, uninterrupted)


def test_so_does_one_with_everything_random(train, uninterrupted, tmp_path):
    run = RUN | {
        "hit_dropout": 0.5,
        "velocity_scaling": 0.5,
        "note_dropout": 0.5,
        "sampling_schedule": "inverse_sigmoid",
        "sampling_rate": 5,
    }
    whole, stopped = (tmp_path / name for name in ("whole", "stopped"))
    train(whole, **run)
    train(stopped, **run | {"max_steps": 9})
    train(stopped, **run, resume_from_checkpoint="latest")
    assert_ends_like(stopped, whole)
    assert best_checkpoint(whole)[1] != best_checkpoint(uninterrupted)[1]


def test_the_best_and_the_last_checkpoint_stay(tmp_path):
    accelerator, training = Accelerator(), parse(output_dir=tmp_path).training
    accelerator.prepare(tiny_model())
    for step, best_step in [(8, 8), (9, 9), (10, 9), (11, 9)]:
        progress = Progress(step=step, best_step=best_step)
        save_checkpoint(accelerator, training, progress, run={})
    assert checkpoint_names(tmp_path) == {"checkpoint-9", "checkpoint-11"}
    assert [path.name for path in checkpoints(tmp_path)] == ["checkpoint-9", "checkpoint-11"]


def test_an_output_dir_that_holds_another_run(train, uninterrupted):
    before = contents(uninterrupted)
    with pytest.raises(FileExistsError, match=f"{uninterrupted} holds checkpoints"):
        train(uninterrupted)
    assert contents(uninterrupted) == before


@pytest.mark.parametrize("name", ["latest", "nowhere/checkpoint-10"])
def test_going_on_from_a_checkpoint_that_is_not_there(name, train, tmp_path):
    with pytest.raises(FileNotFoundError, match=f"no checkpoint '{name}' in {tmp_path}"):
        train(tmp_path, resume_from_checkpoint=name)


def test_going_on_from_a_checkpoint_of_another_run(train, uninterrupted, tmp_path):
    other = uninterrupted / "checkpoints/checkpoint-10"
    with pytest.raises(FileNotFoundError, match=f"no checkpoint '{other}' in {tmp_path}"):
        train(tmp_path, max_steps=20, resume_from_checkpoint=other)


def test_going_on_to_a_step_that_is_over(train, uninterrupted):
    before = contents(uninterrupted)
    with pytest.raises(ValueError, match="^max_steps: found 10, expected more than the 10"):
        train(uninterrupted, **RUN, resume_from_checkpoint="latest")
    assert contents(uninterrupted).items() >= before.items()
