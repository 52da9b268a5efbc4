"""Checkpoints of a training run: saved whole, found again, gone on from."""

import json
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path

from accelerate import Accelerator

from .arguments import TrainingArguments


@dataclass
class Progress:
    """Where a run is: all that a checkpoint needs beside what accelerate saves."""

    step: int = 0
    seconds: float = 0.0
    best_step: int = 0
    best_metrics: dict[str, float] = field(default_factory=dict)


def checkpoints(output_dir: Path) -> list[Path]:
    """The whole checkpoints of a run, oldest first."""
    folders = Path(output_dir, "checkpoints").glob("checkpoint-*")
    whole = [folder for folder in folders if folder.suffix != ".tmp"]
    return sorted(whole, key=lambda folder: int(folder.name.split("-")[1]))


def save_checkpoint(
    accelerator: Accelerator, training: TrainingArguments, progress: Progress
) -> None:
    """Saves what `resume` needs under a temporary name, renames it, and drops older checkpoints.

    The best checkpoint and the last one stay.
    """
    folder = Path(training.output_dir, "checkpoints", f"checkpoint-{progress.step}")
    temporary = folder.with_suffix(".tmp")
    accelerator.save_state(str(temporary))
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        state = json.dumps(asdict(progress), indent=2)
        Path(temporary, "progress.json").write_text(state, encoding="utf-8")
        if folder.exists():
            shutil.rmtree(folder)
        temporary.rename(folder)
        for old in checkpoints(Path(training.output_dir)):
            if old.name not in (folder.name, f"checkpoint-{progress.best_step}"):
                shutil.rmtree(old)
    accelerator.wait_for_everyone()


def resume(accelerator: Accelerator, training: TrainingArguments) -> Progress:
    """Loads the checkpoint to go on from, if one is asked for."""
    if training.resume_from_checkpoint is None:
        return Progress()
    found = checkpoints(Path(training.output_dir))
    if training.resume_from_checkpoint != "latest":
        wanted = Path(training.resume_from_checkpoint).resolve()
        found = [folder for folder in found if folder.resolve() == wanted]
    if not found:
        raise FileNotFoundError(
            f"resume_from_checkpoint: found no checkpoint {training.resume_from_checkpoint!r} in "
            f"{training.output_dir}"
        )
    folder = found[-1]
    progress = Progress(**json.loads(Path(folder, "progress.json").read_text(encoding="utf-8")))
    accelerator.load_state(str(folder))
    return progress
