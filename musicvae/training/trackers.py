"""The trackers of a run, TensorBoard or others: one that fails does not end the run."""

from collections.abc import Callable
from typing import Any

from accelerate import Accelerator
from accelerate.tracking import GeneralTracker, get_available_trackers
from tqdm.auto import tqdm


def check_trackers(names: list[str]) -> None:
    """Raises `ValueError` for a tracker that is not installed; accelerate would leave it out."""
    available = sorted(map(str, get_available_trackers()))
    for name in names:
        if name not in available:
            raise ValueError(
                f"report_to: found {name}, expected one of those that are installed: "
                f"{', '.join(available)}"
            )


def log(accelerator: Accelerator, values: dict[str, Any], step: int) -> None:
    """Logs values of a step with each tracker."""
    for_each_tracker(accelerator, lambda tracker: tracker.log(values, step=step))


def for_each_tracker(accelerator: Accelerator, action: Callable[[GeneralTracker], None]) -> None:
    """Calls `action` with each tracker; one that cannot write is dropped, with a message.

    A file that was cut off on a full disk cannot be continued: a run that is resumed begins a new
    one.
    """
    for tracker in list(accelerator.trackers):
        try:
            action(tracker)
        except OSError as error:
            accelerator.trackers.remove(tracker)
            tqdm.write(f"{tracker.name}: {error}: it logs nothing more of this run")


def end_training(accelerator: Accelerator) -> None:
    """Ends trackers and processes."""
    for_each_tracker(accelerator, lambda tracker: tracker.finish())
    accelerator.trackers.clear()
    accelerator.end_training()
