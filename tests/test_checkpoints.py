"""Checkpoints: which stay, resuming from them bit for bit, and what is refused."""

import hashlib
import json
import os
import pickle
import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file, save_file
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
    find_checkpoint,
    load_checkpoint,
    remove_unfinished,
    save_checkpoint,
)
from processing.demo_grooves import write_demo_grooves

RUN_OF_CHECKPOINT = describe_run(parse(), num_processes=1, data="some drums")


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
    save_checkpoint(accelerator, settings, Progress(step=1, best_step=1), RUN_OF_CHECKPOINT)
    return Path(settings.output_dir, "checkpoints/checkpoint-1")


def test_a_stopped_run_is_resumed_bit_for_bit(train, uninterrupted, tmp_path):
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


@pytest.mark.parametrize(
    "name",
    [
        "checkpoint-1-backup",
        "checkpoint-1.bak",
        "checkpoint-01",
        "checkpoint-7",
        "checkpoint-1.tmp",
    ],
)
def test_a_copy_is_neither_a_checkpoint_nor_removed(
    name, checkpoint, accelerator, settings, tmp_path
):
    copy = shutil.copytree(checkpoint, checkpoint.with_name(name))
    before = contents(copy)
    assert checkpoints(tmp_path) == [checkpoint]
    remove_unfinished(tmp_path)
    for step in 2, 3:
        save_checkpoint(accelerator, settings, Progress(step=step, best_step=2), RUN_OF_CHECKPOINT)
    assert checkpoint_names(tmp_path) == {"checkpoint-2", "checkpoint-3", name}
    assert contents(copy) == before


def test_a_checkpoint_of_another_run_is_not_removed(checkpoint, accelerator, settings, tmp_path):
    for step in 2, 3:
        save_checkpoint(accelerator, settings, Progress(step=step, best_step=3), run={"seed": 1})
    assert checkpoint_names(tmp_path) == {"checkpoint-1", "checkpoint-3"}


def test_a_checkpoint_that_was_moved_and_linked_is_resumed_from_and_stays(
    checkpoint, accelerator, settings, tmp_path
):
    moved = checkpoint.rename(tmp_path / "moved")
    checkpoint.symlink_to(moved)
    assert checkpoints(tmp_path) == [checkpoint]
    before = contents(moved)
    save_checkpoint(accelerator, settings, Progress(step=2, best_step=2), RUN_OF_CHECKPOINT)
    assert contents(moved) == before
    assert checkpoint_names(tmp_path) == {"checkpoint-1", "checkpoint-2"}


@pytest.mark.parametrize("kind", ["folder of the user's", "copy of another step", "file"])
def test_nothing_of_the_users_makes_way_for_a_checkpoint(
    kind, checkpoint, accelerator, settings, tmp_path
):
    place = checkpoint.with_name("checkpoint-2")
    if kind == "copy of another step":
        shutil.copytree(checkpoint, place)
    elif kind == "file":
        place.write_text("mine")
    else:
        place.mkdir()
        (place / "notes.txt").write_text("mine")
    before = contents(tmp_path)
    with pytest.raises(CheckpointError, match=f"{place}: found something .*move it elsewhere"):
        find_checkpoint(settings, RUN_OF_CHECKPOINT)
    with pytest.raises(CheckpointError, match=f"{place}: found something .*checkpoint-1$"):
        save_checkpoint(accelerator, settings, Progress(step=2), RUN_OF_CHECKPOINT)
    assert contents(tmp_path) == before


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


@pytest.mark.parametrize("name", FILES)
def test_checksums_that_leave_a_file_out(name, checkpoint):
    checksums = json.loads((checkpoint / "checksums.json").read_text())
    for kept in ({file: checksums[file] for file in FILES if file != name}, {}):
        (checkpoint / "checksums.json").write_text(json.dumps(kept))
        with pytest.raises(CheckpointError, match=f"^{checkpoint}/checksums.json: found no checks"):
            check_whole(checkpoint)


@pytest.mark.parametrize("name", [*FILES, "checksums.json"])
def test_a_pipe_in_a_checkpoint_is_not_waited_for(name, checkpoint, tmp_path):
    (checkpoint / name).unlink()
    os.mkfifo(checkpoint / name)
    assert checkpoints(tmp_path) == [checkpoint]
    with pytest.raises(CheckpointError, match=f"^{checkpoint}: found no {name}, expected"):
        check_whole(checkpoint)


def test_what_a_file_manager_leaves_in_a_checkpoint_is_no_damage(checkpoint):
    (checkpoint / ".DS_Store").write_text("")
    check_whole(checkpoint)


class Evil:
    """Unpickled, it leaves a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


def weights_without_one(path: Path) -> None:
    weights = load_file(path)
    del weights["encoder.mean.weight"]
    save_file(weights, path)


def weights_with_a_nan(path: Path) -> None:
    weights = load_file(path)
    weights["encoder.mean.weight"][0, 0] = torch.nan
    save_file(weights, path)


MISFITS = {
    "random states, garbage": ("random_states_0.pkl", lambda path: path.write_bytes(b"drums")),
    "random states, none": ("random_states_0.pkl", lambda path: torch.save({}, path)),
    "random states, a list": ("random_states_0.pkl", lambda path: torch.save([1], path)),
    "random states, code": ("random_states_0.pkl", lambda path: torch.save(Evil(EVIL), path)),
    "optimiser, garbage": ("optimizer.bin", lambda path: path.write_bytes(b"drums")),
    "optimiser, a bare pickle": (
        "optimizer.bin",
        lambda path: path.write_bytes(pickle.dumps({}, 2)),
    ),
    "optimiser, another's": ("optimizer.bin", lambda path: torch.save({"state": {}}, path)),
    "optimiser, code": ("optimizer.bin", lambda path: torch.save(Evil(EVIL), path)),
    "weights, garbage": (WEIGHTS, lambda path: path.write_bytes(b"drums")),
    "weights, one missing": (WEIGHTS, weights_without_one),
    "weights, NaN": (WEIGHTS, weights_with_a_nan),
    "progress, a list": ("progress.json", lambda path: path.write_text("[]")),
    "progress, no step": ("progress.json", lambda path: path.write_text("{}")),
    "progress, words": ("progress.json", lambda path: path.write_text('{"step": "one"}')),
    "progress, too deep": ("progress.json", lambda path: path.write_text("[" * 100_000)),
}
EVIL = Path("evil")


@pytest.mark.parametrize(("name", "damage"), MISFITS.values(), ids=MISFITS)
def test_a_file_that_cannot_be_restored_is_an_error_though_its_checksum_fits(
    name, damage, checkpoint, accelerator, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    damage(checkpoint / name)
    sums = json.loads((checkpoint / "checksums.json").read_text())
    sums[name] = hashlib.sha256((checkpoint / name).read_bytes()).hexdigest()
    (checkpoint / "checksums.json").write_text(json.dumps(sums))
    check_whole(checkpoint)
    with pytest.raises(CheckpointError, match=f"^{checkpoint}") as error:
        load_checkpoint(accelerator, checkpoint)
    assert len(str(error.value).splitlines()) == 1
    assert not EVIL.exists()


class Flattened(torch.nn.Module):
    """Two weights in one storage, as cuDNN flattens those of an LSTM."""

    def __init__(self):
        super().__init__()
        storage = torch.arange(6.0)
        self.first, self.second = (torch.nn.Parameter(part) for part in storage.split([2, 4]))


def test_weights_that_share_a_storage_are_all_saved_and_restored(settings, tmp_path):
    accelerator, model = Accelerator(), Flattened()
    model, optimizer = accelerator.prepare(model, torch.optim.Adam(model.parameters()))
    save_checkpoint(accelerator, settings, Progress(step=1), run={})
    (folder,) = checkpoints(tmp_path)
    assert load_file(folder / WEIGHTS).keys() == {"first", "second"}
    with torch.no_grad():
        model.first.zero_(), model.second.zero_()
    load_checkpoint(accelerator, folder)
    assert torch.cat([model.first, model.second]).tolist() == [0, 1, 2, 3, 4, 5]


def test_a_checkpoint_without_a_weight_is_not_written(accelerator, settings, tmp_path, monkeypatch):
    def drop_one(state: dict, *args: object) -> dict:
        return dict(list(state.items())[1:])

    monkeypatch.setattr("accelerate.utils.other.clean_state_dict_for_safetensors", drop_one)
    with pytest.raises(CheckpointError, match="could not be written: .*: found no .*all weights"):
        save_checkpoint(accelerator, settings, Progress(step=1), run={})
    assert checkpoint_names(tmp_path) == set()


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
def test_a_run_is_not_resumed_with_other_settings(name, value, checkpoint):
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
def test_a_run_is_resumed_if_all_that_it_computes_stays_the_same(name, value, checkpoint):
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


@pytest.mark.parametrize(
    ("num_checkpoints", "needed"), [(1, 2), (2, 1), (3, 1)], ids=["one", "two", "three"]
)
def test_checkpoints_that_are_there_need_no_other_room(
    num_checkpoints, needed, accelerator, settings, tmp_path, monkeypatch
):
    for step in range(num_checkpoints):
        save_checkpoint(accelerator, settings, Progress(step=step), run={"seed": step})
    files = checkpoints(tmp_path)[0].rglob("*")
    size = sum(path.stat().st_size for path in files)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=needed * size))
    check_space(tmp_path, tiny_model())
    free = int(0.9 * needed * size)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=free))
    with pytest.raises(CheckpointError, match="of free disk space, expected"):
        check_space(tmp_path, tiny_model())


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
def test_resuming_from_a_missing_checkpoint(name, train, tmp_path):
    with pytest.raises(FileNotFoundError, match=f"no checkpoint '{name}' in {tmp_path}"):
        train(tmp_path, resume_from_checkpoint=name)


def test_resuming_from_a_checkpoint_of_another_run(train, uninterrupted, tmp_path):
    other = uninterrupted / "checkpoints/checkpoint-10"
    with pytest.raises(FileNotFoundError, match=f"no checkpoint '{other}' in {tmp_path}"):
        train(tmp_path, max_steps=20, resume_from_checkpoint=other)


def test_resuming_to_a_step_that_is_over(train, uninterrupted):
    before = contents(uninterrupted)
    with pytest.raises(ValueError, match="^max_steps: found 9, expected at least the 10"):
        train(uninterrupted, **RUN | {"max_steps": 9}, resume_from_checkpoint="latest")
    assert contents(uninterrupted).items() >= before.items()


def test_a_run_that_was_killed_after_its_last_step_leaves_its_model_when_it_is_resumed(
    train, uninterrupted, tmp_path
):
    output_dir = shutil.copytree(uninterrupted, tmp_path / "killed")
    (output_dir / "model.safetensors").unlink()
    train(output_dir, **RUN, resume_from_checkpoint="latest")
    for name in ("model.safetensors", "samples/sample-1.mid"):
        assert (output_dir / name).read_bytes() == (uninterrupted / name).read_bytes()
