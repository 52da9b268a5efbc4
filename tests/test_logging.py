"""What a user sees: the first screen, tables, speed, and pictures in the logs."""

import io
import time

import pytest
import torch
from accelerate import Accelerator
from accelerate.utils import ProjectConfiguration
from matplotlib.image import imread
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from training_runs import parse, tiny_model

from musicvae.training.checkpoints import Progress
from musicvae.training.logging import (
    PICTURED,
    Speedometer,
    check_trackers,
    evaluation_table,
    log_pictures,
)
from processing.picture import PANEL_HEIGHT, WIDTH


def test_the_first_screen_says_what_is_trained_on_what_where_to_and_how_long(quickstart):
    output_dir, printed = quickstart
    lines = [line.split("\r")[-1] for line in printed.splitlines()]
    starts = (
        "Model      hierarchical, 4 bars, ",
        "Data       demo, ",
        "Training   to step 30 from 0",
    )
    first = next(i for i, line in enumerate(lines) if line.startswith(starts[0]))
    for line, start in zip(lines[first:], starts, strict=False):
        assert line.startswith(start)
    assert lines[first + 3] == f"Output     {output_dir} (tensorboard --logdir {output_dir}/logs)"
    assert "Time       about " in printed


def test_the_table_shows_an_evaluation_beside_the_best():
    metrics, best = {"loss": 350.25, "new": 0.5}, {"loss": 360.75}
    first, second = (
        evaluation_table(metrics, progress)
        for progress in (Progress(step=10), Progress(step=10, best_step=5, best_metrics=best))
    )
    assert [line.split() for line in first.splitlines()] == [
        ["step", "10", "validation"],
        ["loss", "350.2"],
        ["new", "0.5"],
    ]
    assert [line.split() for line in second.splitlines()] == [
        ["step", "10", "validation", "best,", "step", "5"],
        ["loss", "350.2", "360.8"],
        ["new", "0.5"],
    ]


def test_the_speedometer_knows_waiting_from_working():
    def slow_loader():
        while True:
            time.sleep(0.02)
            yield {"piano_roll": torch.zeros(4, 9, 64)}

    speedometer = Speedometer(num_processes=2)
    batches = speedometer.watch(slow_loader())
    for _ in range(5):
        next(batches)
    waiting = speedometer.read()
    assert 0.5 < waiting["train/data_wait"] <= 1
    assert 0 < waiting["train/sequences_per_second"] <= 2 * 4 / 0.02
    time.sleep(0.02)
    assert speedometer.read() == {"train/sequences_per_second": 0, "train/data_wait": 0}


@pytest.mark.parametrize("settings", [{}, {"hits_as_controls": True}], ids=["drums", "told hits"])
def test_reconstructions_and_samples_are_pictured_without_a_random_number_of_training(
    settings, loaders, tmp_path
):
    config = ProjectConfiguration(logging_dir=str(tmp_path))
    accelerator = Accelerator(log_with="tensorboard", project_config=config)
    accelerator.init_trackers("run")
    model, training = tiny_model(**settings).train(), parse().training
    state = torch.get_rng_state()
    log_pictures(accelerator, model, loaders[1], training, step=3)
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training
    accelerator.end_training()
    events = EventAccumulator(str(tmp_path / "run")).Reload()
    for name, panels in (("reconstructions", 2 * PICTURED), ("samples", PICTURED)):
        (event,) = events.Images(name)
        picture = imread(io.BytesIO(event.encoded_image_string))
        assert event.step == 3
        assert picture.shape[1] == WIDTH
        assert picture.shape[0] // PANEL_HEIGHT == panels
        assert picture.std() > 0.05


def test_a_tracker_that_is_not_installed_is_refused():
    check_trackers(["tensorboard"])
    with pytest.raises(ValueError, match="^report_to: found nothing, expected .* tensorboard"):
        check_trackers(["tensorboard", "nothing"])
