"""Checkpoints of a training run: written whole or not at all, checked, and gone on from."""

import hashlib
import json
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from ..atomic import UNFINISHED, discard_folder, put_in_place, remove_folder, unfinished
from .arguments import Arguments, TrainingArguments

PROGRESS, RUN, CHECKSUMS = "progress.json", "run.json", "checksums.json"
# Arguments that may change when a run goes on; all others decide what it computes.
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
    """Where a run is: all that a checkpoint needs beside what accelerate saves."""

    step: int = 0
    seconds: float = 0.0
    skipped_steps: int = 0
    best_step: int = 0
    best_metrics: dict[str, float] = field(default_factory=dict)


def describe_run(arguments: Arguments, num_processes: int, data: str) -> Run:
    """What must be the same for a run to go on as if it had not stopped.

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


def checkpoints(output_dir: Path) -> list[Path]:
    """The whole checkpoints of a run, oldest first."""
    folders = Path(output_dir, "checkpoints").glob("checkpoint-*")
    return sorted(folders, key=lambda folder: int(folder.name.split("-")[1]))


def checkpoint_weights(output_dir: Path, step: int) -> Path:
    return Path(output_dir, "checkpoints", f"checkpoint-{step}", "model.safetensors")


def remove_unfinished(output_dir: Path) -> None:
    """Removes what a run that was killed while it wrote a checkpoint or the model has left."""
    for kind in ("checkpoints/.checkpoint-*", ".model"):
        for folder in output_dir.glob(kind + UNFINISHED):
            remove_folder(folder)


def save_checkpoint(
    accelerator: Accelerator, training: TrainingArguments, progress: Progress, run: Run
) -> None:
    """Saves a checkpoint under a temporary name, renames it, and drops all but it and the best.

    One of the same step is replaced: the run has gone on from an older one, perhaps because that
    one was damaged.

    Raises:
        CheckpointError: it could not be written; nothing of it stays behind.
    """
    output_dir = Path(training.output_dir)
    folder = Path(output_dir, "checkpoints", f"checkpoint-{progress.step}")
    temporary = unfinished(folder)
    try:
        accelerator.save_state(str(temporary))
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            write_json(temporary / PROGRESS, asdict(progress))
            write_json(temporary / RUN, run)
            write_json(temporary / CHECKSUMS, checksums(temporary))
            put_in_place(temporary, folder, replace=True)
    except Exception as error:  # a full disk surfaces as an error of every library that writes
        shutil.rmtree(temporary, ignore_errors=True)
        kept = [str(whole) for whole in checkpoints(output_dir)[-1:]] or ["none"]
        raise CheckpointError(
            f"{folder}: could not be written: {error}. The newest whole checkpoint is {kept[0]}"
        ) from error
    if accelerator.is_main_process:
        for old in checkpoints(output_dir):
            if old.name not in (folder.name, f"checkpoint-{progress.best_step}"):
                discard_folder(old)
    accelerator.wait_for_everyone()


def check_space(output_dir: Path, model: torch.nn.Module) -> None:
    """Raises `CheckpointError` if three checkpoints, best, last and next, would fill the disk."""
    weights = sum(parameter.nbytes for parameter in model.parameters())
    needed = 3 * 3 * weights  # Adam keeps two numbers beside each weight
    free = shutil.disk_usage(output_dir).free
    if free < needed:
        raise CheckpointError(
            f"{output_dir}: found {free / 1e6:.0f} MB of free disk space, expected "
            f"{needed / 1e6:.0f} MB for the checkpoints"
        )


def find_checkpoint(training: TrainingArguments, run: Run) -> Path | None:
    """The checkpoint to go on from, if one is asked for, after a check that it can be used.

    Raises:
        FileNotFoundError: there is no such checkpoint in the output folder.
        CheckpointError: it is damaged, or belongs to another run.
    """
    if training.resume_from_checkpoint is None:
        return None
    found = checkpoints(Path(training.output_dir))
    if training.resume_from_checkpoint != "latest":
        wanted = Path(training.resume_from_checkpoint).resolve()
        found = [folder for folder in found if folder.resolve() == wanted]
    if not found:
        raise FileNotFoundError(
            f"resume_from_checkpoint: found no checkpoint {training.resume_from_checkpoint!r} in "
            f"{training.output_dir}"
        )
    check_whole(found[-1])
    check_same_run(found[-1], run)
    return found[-1]


def check_whole(folder: Path) -> None:
    """Raises `CheckpointError` unless every file of a checkpoint is as it was saved."""
    found = checksums(folder)
    if CHECKSUMS not in found:
        raise CheckpointError(
            f"{folder}: found no {CHECKSUMS}, expected that of a whole checkpoint"
        )
    try:
        saved = read_json(folder / CHECKSUMS)
    except ValueError as error:
        raise CheckpointError(
            f"{folder / CHECKSUMS}: found {error}, expected JSON: the file is damaged"
        ) from error
    for name, expected in saved.items():
        if name not in found:
            raise CheckpointError(f"{folder}: found no {name}, expected what was saved")
        if found[name] != expected:
            raise CheckpointError(
                f"{folder / name}: found sha256 {found[name]}, expected {expected}: the file is "
                "damaged. Another checkpoint can be named with --resume_from_checkpoint"
            )


def check_same_run(folder: Path, run: Run) -> None:
    """Raises `CheckpointError` if a checkpoint was saved by a run with other settings."""
    saved = read_json(folder / RUN)
    for name, value in json.loads(json.dumps(run)).items():
        if saved.get(name) != value:
            raise CheckpointError(
                f"{folder}: {name}: found {value!r}, expected {saved.get(name)!r}, with which this "
                "run began"
            )


def load_checkpoint(accelerator: Accelerator, folder: Path | None) -> Progress:
    """Goes on from a checkpoint, or begins where there is none."""
    if folder is None:
        return Progress()
    accelerator.load_state(str(folder))
    return Progress(**read_json(folder / PROGRESS))


def checksums(folder: Path) -> dict[str, str]:
    """The sha256 of every file in a folder and its subfolders, by its path in it."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


def write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2), encoding="utf-8")


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
