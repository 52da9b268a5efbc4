"""Checkpoints: which stay, going on from them bit for bit, and what is refused."""

import json
import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator
from training_runs import (
    RUN,
    WEIGHTS,
    assert_ends_like,
    best_checkpoint,
    checkpoint_names,
    parse,
    tiny_model,
)

from musicvae.training.arguments import TrainingArguments
from musicvae.training.checkpoints import (
    CheckpointError,
    Progress,
    check_same_run,
    check_space,
    check_whole,
    checkpoints,
    describe_run,
    remove_unfinished,
    save_checkpoint,
)
from processing.demo_grooves import write_demo_grooves


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@contextmanager
def room_for(num_bytes: int) -> Iterator[None]:
    """No file can grow beyond a size, which to those who write it is like a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def accelerator() -> Accelerator:
    """With a tiny model and its optimiser, which has taken a step."""
    accelerator = Accelerator()
    model = tiny_model()
    optimizer = torch.optim.Adam(model.parameters())
    model, optimizer = accelerator.prepare(model, optimizer)
    sum(parameter.sum() for parameter in model.parameters()).backward()
    optimizer.step()
    return accelerator


@pytest.fixture
def settings(tmp_path) -> TrainingArguments:
    return parse(output_dir=tmp_path).training


@pytest.fixture
def checkpoint(accelerator, settings) -> Path:
    run = describe_run(parse(), num_processes=1, data="some drums")
    save_checkpoint(accelerator, settings, Progress(step=1, best_step=1), run)
    return Path(settings.output_dir, "checkpoints/checkpoint-1")


def test_a_stopped_run_goes_on_as_if_it_had_not_stopped(train, uninterrupted, tmp_path):
    train(tmp_path, **RUN | {"max_steps": 9})
    train(tmp_path, **RUN, resume_from_checkpoint="latest")
    assert_ends_like(tmp_path, uninterrupted)


def test_so_does_one_with_everything_random(train, uninterrupted, tmp_path):
    run = RUN | {
        "hit_dropout": 0.5,
        "velocity_scaling": 0.5,
        "encoder_hit_dropout": 0.5,
        "scheduled_sampling_schedule": "inverse_sigmoid",
        "scheduled_sampling_rate": 5,
    }
    whole, stopped = (tmp_path / name for name in ("whole", "stopped"))
    train(whole, **run)
    train(stopped, **run | {"max_steps": 9})
    train(stopped, **run, resume_from_checkpoint="latest")
    assert_ends_like(stopped, whole)
    assert best_checkpoint(whole)[1] != best_checkpoint(uninterrupted)[1]


def test_so_does_one_with_accumulation_and_workers_in_mid_epoch(train, tmp_path):
    run = {
        "hop_bars": 4,  # 146 windows, so an epoch ends in the tenth step
        "batch_size": 16,
        "gradient_accumulation_steps": 4,
        "num_workers": 2,
        "encoder_hit_dropout": 0.5,
        "max_steps": 14,
        "decay_steps": 14,
    }
    whole, stopped = (tmp_path / name for name in ("whole", "stopped"))
    train(whole, **run)
    train(stopped, **run | {"max_steps": 5})
    train(stopped, **run, resume_from_checkpoint="latest")
    assert_ends_like(stopped, whole)


def test_the_best_and_the_last_checkpoint_stay(accelerator, settings, tmp_path):
    for step, best_step in [(8, 8), (9, 9), (10, 9), (11, 9)]:
        progress = Progress(step=step, best_step=best_step)
        save_checkpoint(accelerator, settings, progress, run={})
    assert checkpoint_names(tmp_path) == {"checkpoint-9", "checkpoint-11"}
    assert [path.name for path in checkpoints(tmp_path)] == ["checkpoint-9", "checkpoint-11"]


@pytest.mark.parametrize(
    "num_bytes", [1000, 300_000], ids=["in the weights", "in the optimiser's state"]
)
def test_a_checkpoint_that_finds_no_room_costs_none_of_the_others(
    num_bytes, accelerator, settings, tmp_path
):
    for step in 1, 2:
        save_checkpoint(accelerator, settings, Progress(step=step, best_step=1), run={})
    message = "checkpoint-3: could not be written: .*newest whole checkpoint is .*checkpoint-2$"
    with room_for(num_bytes), pytest.raises(CheckpointError, match=message):
        save_checkpoint(accelerator, settings, Progress(step=3, best_step=3), run={})
    assert checkpoint_names(tmp_path) == {"checkpoint-1", "checkpoint-2"}
    for folder in checkpoints(tmp_path):
        check_whole(folder)


def test_a_first_checkpoint_that_finds_no_room(accelerator, settings, tmp_path):
    with room_for(0), pytest.raises(CheckpointError, match="newest whole checkpoint is none$"):
        save_checkpoint(accelerator, settings, Progress(step=1), run={})
    assert checkpoint_names(tmp_path) == set()


def test_what_a_kill_left_is_no_checkpoint_and_is_removed(checkpoint, tmp_path):
    for name in ".checkpoint-2.tmp", ".checkpoint-0.old.tmp":
        shutil.copytree(checkpoint, checkpoint.with_name(name))
    assert checkpoints(tmp_path) == [checkpoint]
    remove_unfinished(tmp_path)
    assert checkpoint_names(tmp_path) == {"checkpoint-1"}


def test_a_damaged_checkpoint_is_replaced_when_the_run_gets_there_again(
    checkpoint, accelerator, settings
):
    saved = contents(checkpoint)
    flip_a_byte(checkpoint / WEIGHTS)
    run = json.loads((checkpoint / "run.json").read_text())
    save_checkpoint(accelerator, settings, Progress(step=1, best_step=1), run)
    check_whole(checkpoint)
    assert (checkpoint / WEIGHTS).read_bytes() == saved[checkpoint / WEIGHTS]


FILES = ["model.safetensors", "optimizer.bin", "random_states_0.pkl", "progress.json", "run.json"]


@pytest.mark.parametrize("name", [*FILES, "checksums.json"])
def test_a_checkpoint_with_a_flipped_byte_is_damaged(name, checkpoint):
    check_whole(checkpoint)
    flip_a_byte(checkpoint / name)
    with pytest.raises(CheckpointError, match=f"^{checkpoint}.*: found "):
        check_whole(checkpoint)


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_byte_is_found_in_the_file_that_has_it(name, checkpoint):
    flip_a_byte(checkpoint / name)
    with pytest.raises(CheckpointError, match=f"^{checkpoint / name}: found sha256 .* is damaged"):
        check_whole(checkpoint)


@pytest.mark.parametrize("name", [*FILES, "checksums.json"])
def test_a_checkpoint_without_one_of_its_files_is_damaged(name, checkpoint):
    (checkpoint / name).unlink()
    with pytest.raises(CheckpointError, match=f"^{checkpoint}: found no {name}, expected"):
        check_whole(checkpoint)


def test_checksums_that_cannot_be_read(checkpoint):
    (checkpoint / "checksums.json").write_bytes(b'{"optimizer.bin": "\xff')
    with pytest.raises(CheckpointError, match=f"^{checkpoint}/checksums.json: found .*damaged"):
        check_whole(checkpoint)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("decoder_hidden_size", 16),
        ("output", "groove"),
        ("removed_drums", "ride"),
        ("decay_steps", 7),
        ("weight_decay", 0.1),
        ("learning_rate", 0.01),
        ("max_grad_norm", 2.0),
        ("seed", 1),
        ("batch_size", 32),
        ("gradient_accumulation_steps", 2),
        ("encoder_hit_dropout", 0.5),
        ("hop_bars", 4),
    ],
)
def test_a_run_does_not_go_on_with_other_settings(name, value, checkpoint):
    run = describe_run(parse(**{name: value}), num_processes=1, data="some drums")
    with pytest.raises(CheckpointError, match=f"^{checkpoint}: {name}: found .*, expected .*began"):
        check_same_run(checkpoint, run)


def test_a_run_does_not_go_on_in_more_processes_or_on_other_drums(checkpoint):
    two_processes = describe_run(parse(), num_processes=2, data="some drums")
    with pytest.raises(CheckpointError, match=": num_processes: found 2, expected 1"):
        check_same_run(checkpoint, two_processes)
    other_drums = describe_run(parse(), num_processes=1, data="other drums")
    with pytest.raises(CheckpointError, match="windows: found 'other drums', expected 'some drums"):
        check_same_run(checkpoint, other_drums)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("save_steps", 7),
        ("eval_steps", 7),
        ("max_steps", 7),
        ("num_epochs", 7),
        ("num_workers", 7),
        ("num_proc", 7),
        ("num_samples", 7),
        ("output_dir", "elsewhere"),
        ("data_dir", "moved"),
        ("resume_from_checkpoint", "latest"),
    ],
)
def test_a_run_goes_on_if_all_that_it_computes_stays_the_same(name, value, checkpoint):
    check_same_run(checkpoint, describe_run(parse(**{name: value}), 1, "some drums"))


def test_training_begins_only_with_room_for_three_checkpoints(tmp_path, monkeypatch):
    def disk_with(free: int):
        return lambda path: SimpleNamespace(free=free)

    model = tiny_model()
    checkpoint_bytes = 3 * sum(parameter.nbytes for parameter in model.parameters())
    monkeypatch.setattr(shutil, "disk_usage", disk_with(3 * checkpoint_bytes))
    check_space(tmp_path, model)
    monkeypatch.setattr(shutil, "disk_usage", disk_with(3 * checkpoint_bytes - 1))
    with pytest.raises(CheckpointError, match=f"^{tmp_path}: found 4 MB of free disk space, exp"):
        check_space(tmp_path, model)


@pytest.fixture
def stopped(uninterrupted, tmp_path) -> Path:
    """The folder of a run, to be written to."""
    return shutil.copytree(uninterrupted, tmp_path / "stopped")


def test_nothing_changes_where_a_checkpoint_is_damaged(train, stopped):
    flip_a_byte(checkpoints(stopped)[-1] / WEIGHTS)
    before = contents(stopped)
    with pytest.raises(CheckpointError, match="model.safetensors: found sha256 .*is damaged"):
        train(stopped, **RUN | {"max_steps": 20}, resume_from_checkpoint="latest")
    assert contents(stopped) == before


@pytest.mark.parametrize(
    ("name", "value"), [("learning_rate", 0.01), ("latent_size", 9), ("hop_bars", 4)]
)
def test_nothing_changes_where_a_run_is_another(name, value, train, stopped):
    before, changed = contents(stopped), RUN | {"max_steps": 20, name: value}
    with pytest.raises(CheckpointError, match=f"checkpoint-10: {name}: found {value}, expected"):
        train(stopped, **changed, resume_from_checkpoint="latest")
    assert contents(stopped) == before


def test_nothing_changes_where_the_drums_are_others(train, stopped, tmp_path):
    before, other_drums = contents(stopped), write_demo_grooves(tmp_path / "other", seed=1)
    with pytest.raises(CheckpointError, match=r"training windows: found '\d+ windows, "):
        train(stopped, **RUN, data_dir=other_drums, resume_from_checkpoint="latest")
    assert contents(stopped) == before


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
    with pytest.raises(ValueError, match="^max_steps: found 9, expected at least the 10"):
        train(uninterrupted, **RUN | {"max_steps": 9}, resume_from_checkpoint="latest")
    assert contents(uninterrupted).items() >= before.items()


def test_a_run_that_was_killed_after_its_last_step_leaves_its_model_when_it_goes_on(
    train, uninterrupted, tmp_path
):
    output_dir = shutil.copytree(uninterrupted, tmp_path / "killed")
    (output_dir / "model.safetensors").unlink()
    train(output_dir, **RUN, resume_from_checkpoint="latest")
    for name in ("model.safetensors", "samples/sample-1.mid"):
        assert (output_dir / name).read_bytes() == (uninterrupted / name).read_bytes()
