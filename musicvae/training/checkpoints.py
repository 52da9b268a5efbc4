"""Checkpoints of a training run: written whole or not at all, and checked before they are used."""

import hashlib
import json
import random
import re
import shutil
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import load
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from tqdm.auto import tqdm

from processing.regular_files import read_regular_file

from ..atomic import discard_folder, put_in_place, remove_folder, unfinished
from .arguments import Arguments, TrainingArguments

NAME = re.compile(r"checkpoint-(0|[1-9][0-9]*)")
WEIGHTS, OPTIMIZER, RANDOM_STATES = "model.safetensors", "optimizer.bin", "random_states_{}.pkl"
PROGRESS, RUN, CHECKSUMS = "progress.json", "run.json", "checksums.json"
FILES = (WEIGHTS, OPTIMIZER, RANDOM_STATES.format(0), PROGRESS, RUN)
MAX_JSON_BYTES = 1 << 20
PIECE_BYTES = 1 << 20
STAGING = "unpublished"  # models that wait to be pushed
COPIES = 3  # that the disk must hold: the best, the last and the next one
# Arguments that may change when a run is resumed; all others decide what it computes.
FREE_ARGUMENTS = {
    "eval_steps",
    "max_skipped_steps",
    "max_steps",
    "num_epochs",
    "num_proc",
    "num_samples",
    "num_workers",
    "output_dir",
    "data_dir",
    "report_to",
    "resume_from_checkpoint",
    "save_steps",
}

Run = dict[str, Any]


class CheckpointError(ValueError):
    """A checkpoint that is damaged, belongs to another run, or could not be written."""


@dataclass
class Progress:
    """State of a run that a checkpoint adds to what accelerate saves."""

    step: int = 0
    seconds: float = 0.0
    skipped_steps: int = 0
    best_step: int = 0
    best_metrics: dict[str, float] = field(default_factory=dict)


def describe_run(arguments: Arguments, num_processes: int, data: str) -> Run:
    """The settings and data that must be the same for a run to be resumed bit for bit.

    Args:
        arguments: those of the run.
        num_processes: each has random numbers of its own.
        data: a fingerprint of the training windows.
    """
    groups = (arguments.data, arguments.architecture, arguments.training)
    settings = {name: value for group in groups for name, value in asdict(group).items()}
    # The workers that read a stream decide the order of its windows.
    free = FREE_ARGUMENTS - ({"num_workers"} if arguments.data.streaming else set())
    run = {name: value for name, value in settings.items() if name not in free}
    return run | {"num_processes": num_processes, "training windows": data}


# --- Which folders are checkpoints ----------------------------------------------------------------


def checkpoints(output_dir: Path) -> list[Path]:
    """The checkpoints in an output folder, oldest first, by their exact names.

    A copy of one under such a name is none, nor is a folder with other content. A damaged one is
    listed, so that its damage is found.
    """
    folders = Path(output_dir, "checkpoints").glob("*")
    steps = {step: folder for folder in folders if (step := step_of(folder)) is not None}
    return [steps[step] for step in sorted(steps)]


def step_of(folder: Path) -> int | None:
    """The step of a checkpoint; None for whatever else a user keeps there."""
    name = NAME.fullmatch(folder.name)
    if not name or not any((folder / file).is_file() for file in FILES):
        return None
    step = int(name[1])
    try:
        saved = read_progress(folder).step
    except CheckpointError:
        return step
    return step if saved == step else None


def is_written_by(run: Run, folder: Path) -> bool:
    """True for a folder, under its own name, that a run wrote itself: it may be removed."""
    try:
        return (
            not folder.is_symlink()
            and read_progress(folder).step == step_of(folder)
            and read_json(folder / RUN) == as_json(run)
        )
    except CheckpointError:
        return False


def checkpoint_weights(output_dir: Path, step: int) -> Path:
    return Path(output_dir, "checkpoints", f"checkpoint-{step}", WEIGHTS)


def remove_unfinished(output_dir: Path) -> None:
    """Removes what a run has left that was killed while it wrote a checkpoint or a model."""
    pattern = rf"\.{NAME.pattern}(\.old)?\.tmp"
    for folder in Path(output_dir, "checkpoints").glob(".checkpoint-*"):
        if re.fullmatch(pattern, folder.name):
            remove_folder(folder)
    remove_folder(unfinished(output_dir / "model"))
    remove_folder(output_dir / STAGING)


# --- Saving ---------------------------------------------------------------------------------------


def save_checkpoint(
    accelerator: Accelerator, training: TrainingArguments, progress: Progress, run: Run
) -> None:
    """Saves a checkpoint under a temporary name, renames it, and drops all but it and the best.

    One of the same step is replaced: the run was resumed from an older one, perhaps because that
    one was damaged. What the run did not write is neither replaced nor dropped.

    Raises:
        CheckpointError: it could not be written; nothing of it stays behind.
    """
    output_dir = Path(training.output_dir)
    folder = Path(output_dir, "checkpoints", f"checkpoint-{progress.step}")
    temporary = unfinished(folder)
    try:
        save_state(accelerator, temporary)
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            write_json(temporary / PROGRESS, asdict(progress))
            write_json(temporary / RUN, run)
            write_json(temporary / CHECKSUMS, checksums(temporary))
            check_place(folder, run)
            put_in_place(temporary, folder, replace=True)
    except Exception as error:  # a full disk surfaces as an error of every library that writes
        shutil.rmtree(temporary, ignore_errors=True)
        kept = [str(whole) for whole in checkpoints(output_dir)[-1:]] or ["none"]
        raise CheckpointError(
            f"{folder}: could not be written: {brief(error)}. The newest whole checkpoint is "
            f"{kept[0]}"
        ) from error
    if accelerator.is_main_process:
        for old in checkpoints(output_dir):
            keep = old.name in (folder.name, f"checkpoint-{progress.best_step}")
            if not keep and is_written_by(run, old):
                discard_folder(old)
    accelerator.wait_for_everyone()


def save_state(accelerator: Accelerator, folder: Path) -> None:
    """Saves all that accelerate restores, with all the model's weights.

    Raises:
        CheckpointError: a weight is not in the file.
    """
    names: set[str] = set()

    def separate(models: list, weights: list[dict[str, torch.Tensor]], _: str) -> None:
        # accelerate drops all but one of the tensors that share a storage, as cuDNN's LSTMs do.
        storages = set()
        for state in weights:
            names.update(state)
            for name, tensor in state.items():
                storage = tensor.untyped_storage().data_ptr()
                state[name] = tensor.clone() if storage in storages else tensor
                storages.add(storage)

    hook = accelerator.register_save_state_pre_hook(separate)
    try:
        accelerator.save_state(str(folder))
    finally:
        hook.remove()
    if accelerator.is_main_process:
        check_weights(folder / WEIGHTS, names)


def check_weights(path: Path, names: set[str]) -> None:
    """Raises `CheckpointError` unless a file holds the weights of these names, and no others."""
    try:
        with safe_open(path, "pt") as file:
            found = set(file.keys())
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: found {brief(error)}, expected safetensors") from error
    for name in sorted(names ^ found)[:1]:
        saved = "no" if name in names else "an unknown"
        raise CheckpointError(f"{path}: found {saved} {name}, expected all weights of the model")


def check_place(folder: Path, run: Run) -> None:
    """Raises `CheckpointError` if a checkpoint would replace what the run did not write."""
    if folder.exists() and not folder.is_symlink() and not is_written_by(run, folder):
        raise CheckpointError(
            f"{folder}: found something that this run did not write, or a damaged checkpoint, "
            "expected nothing: move it elsewhere"
        )


def check_space(output_dir: Path, model: torch.nn.Module) -> None:
    """Raises `CheckpointError` if three checkpoints, best, last and next, would fill the disk.

    Those that are there count: the next one is written before the oldest is dropped.
    """
    size = 3 * sum(parameter.nbytes for parameter in model.parameters())  # Adam keeps two numbers
    files = (path for folder in checkpoints(output_dir) for path in folder.rglob("*"))
    held = sum(path.stat().st_size for path in files if path.is_file())
    needed = max(size, COPIES * size - held)
    free = shutil.disk_usage(output_dir).free
    if free < needed:
        raise CheckpointError(
            f"{output_dir}: found {free / 1e6:.0f} MB of free disk space, expected "
            f"{needed / 1e6:.0f} MB for the checkpoints"
        )


# --- Resuming -------------------------------------------------------------------------------------


def find_checkpoint(training: TrainingArguments, run: Run) -> Path | None:
    """The checkpoint to resume from, if one is asked for, after a check that it can be used.

    Raises:
        FileNotFoundError: there is no such checkpoint in the output folder.
        CheckpointError: it is damaged, belongs to another run, or another one is in the way.
    """
    output_dir = Path(training.output_dir)
    found = checkpoints(output_dir)
    if training.resume_from_checkpoint is not None:
        if training.resume_from_checkpoint != "latest":
            wanted = Path(training.resume_from_checkpoint).resolve()
            found = [folder for folder in found if folder.resolve() == wanted]
        if not found:
            raise FileNotFoundError(
                f"resume_from_checkpoint: found no checkpoint {training.resume_from_checkpoint!r} "
                f"in {output_dir}"
            )
        check_whole(found[-1])
        check_same_run(found[-1], run)
    for folder in Path(output_dir, "checkpoints").glob("*"):
        if NAME.fullmatch(folder.name):
            check_place(folder, run)
    return found[-1] if training.resume_from_checkpoint is not None else None


def check_whole(folder: Path) -> None:
    """Raises `CheckpointError` unless every file of a checkpoint is there and as it was saved."""
    found = checksums(folder)
    if found.pop(CHECKSUMS, None) is None:
        raise CheckpointError(
            f"{folder}: found no {CHECKSUMS}, expected that of a whole checkpoint"
        )
    saved = read_json(folder / CHECKSUMS)
    for name in dict.fromkeys((*FILES, *saved)):
        if name not in found:
            raise CheckpointError(f"{folder}: found no {name}, expected what was saved")
    for name, checksum in found.items():
        if name not in saved:
            raise CheckpointError(
                f"{folder / CHECKSUMS}: found no checksum of {name}, expected one of each file"
            )
        if checksum != saved[name]:
            raise CheckpointError(
                f"{folder / name}: found sha256 {checksum}, expected {saved[name]!s:.64}: the file "
                "is damaged. Another checkpoint can be named with --resume_from_checkpoint"
            )


def check_same_run(folder: Path, run: Run) -> None:
    """Raises `CheckpointError` if a checkpoint was saved by a run with other settings."""
    saved = read_json(folder / RUN)
    for name, value in as_json(run).items():
        if saved.get(name) != value:
            raise CheckpointError(
                f"{folder}: {name}: found {value!r:.200}, expected {saved.get(name)!r:.200}, with "
                "which this run began"
            )


def load_checkpoint(accelerator: Accelerator, folder: Path | None) -> Progress:
    """Resumes from a checkpoint, or begins where there is none.

    Raises:
        CheckpointError: a part of it cannot be restored.
    """
    if folder is None:
        return Progress()
    progress = read_progress(folder)
    random_states = folder / RANDOM_STATES.format(accelerator.process_index)
    states = read_tensors(random_states)
    read_tensors(folder / OPTIMIZER)

    def load_weights(models: list[torch.nn.Module], _: str) -> None:
        while models:  # none is left for accelerate, which refuses tensors that share a storage
            model = models.pop()
            check_weights(folder / WEIGHTS, set(model.state_dict()))
            weights = load_file(folder / WEIGHTS)
            for name, tensor in weights.items():
                if not tensor.isfinite().all():
                    raise CheckpointError(f"{folder / WEIGHTS}: {name}: found NaN or inf")
            model.load_state_dict(weights)

    hook = accelerator.register_load_state_pre_hook(load_weights)
    try:
        accelerator.load_state(str(folder), load_kwargs={"weights_only": True})
    except CheckpointError:
        raise
    except Exception as error:  # of torch, of accelerate, or of safetensors
        raise CheckpointError(f"{folder}: could not be restored: {brief(error)}") from error
    finally:
        hook.remove()
    if not are_restored(states):  # accelerate skips, with a line in its log, what it cannot read
        raise CheckpointError(f"{random_states}: could not be restored, expected random states")
    if torch.cuda.is_available() and "torch_cuda_manual_seed" not in states:
        tqdm.write(f"{random_states}: has no state of a GPU, whose random numbers start anew")
    return progress


def are_restored(states: Any) -> bool:
    """True if the random numbers of this process continue from saved states."""
    try:
        kind, numbers, *rest = states["numpy_random_seed"]
        found_kind, found_numbers, *found_rest = np.random.get_state()
        return (
            type(states["step"]) is int
            and random.getstate() == states["random_state"]
            and (found_kind, found_rest) == (kind, rest)
            and np.array_equal(found_numbers, numbers)
            and torch.equal(torch.get_rng_state(), states["torch_manual_seed"])
        )
    except (LookupError, TypeError, ValueError):
        return False


# --- Files ----------------------------------------------------------------------------------------


def read_tensors(path: Path) -> Any:
    """Reads what `torch.save` wrote; nothing in it is executed.

    Raises:
        CheckpointError: it is damaged, or holds more than tensors, numbers and words.
    """
    try:
        return load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damage surfaces as almost any error of torch, pickle or zipfile
        raise CheckpointError(
            f"{path}: found {brief(error)}, expected tensors: the file is damaged"
        ) from error


def read_progress(folder: Path) -> Progress:
    """Reads the progress of a checkpoint.

    Raises:
        CheckpointError: it is damaged.
    """
    found, expected = read_json(folder / PROGRESS), Progress()
    for each in fields(Progress):
        value, default = found.get(each.name), getattr(expected, each.name)
        kinds = (int, float) if isinstance(default, float) else (type(default),)
        if type(value) not in kinds:
            raise CheckpointError(
                f"{folder / PROGRESS}: {each.name}: found {value!r:.80}, expected "
                f"{kinds[-1].__name__}"
            )
        setattr(expected, each.name, value)
    return expected


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON object.

    Raises:
        CheckpointError: it is damaged.
    """
    try:
        value = json.loads(read_regular_file(path, MAX_JSON_BYTES))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{path}: found {brief(error)}, expected JSON: the file is damaged"
        ) from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: found {value!r:.80}, expected a JSON object")
    return value


def write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2), encoding="utf-8")


def as_json(run: Run) -> dict[str, Any]:
    """A run as it is read again."""
    return json.loads(json.dumps(run))


def checksums(folder: Path) -> dict[str, str]:
    """The sha256 of every file in a folder and its subfolders, by its path in it.

    Hidden files, which file managers leave, do not count.
    """
    return {
        path.relative_to(folder).as_posix(): sha256(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith(".")
    }


def sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(PIECE_BYTES):
            digest.update(piece)
    return digest.hexdigest()


def brief(error: Exception) -> str:
    """The first line of an error, and not all of a long one."""
    first = next(iter(str(error).splitlines()), "")
    return f"{type(error).__name__}: {first[:200]}"
