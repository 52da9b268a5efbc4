"""The output of a run: the first screen, tables, speed, and pictures in the logs."""

import errno
import io
import os
import re
import shutil
import time
from itertools import chain, repeat
from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator
from accelerate.utils import ProjectConfiguration
from matplotlib.image import imread
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from training_runs import RUN, assert_ends_like, parse, tiny_model

from musicvae.training.checkpoints import Progress
from musicvae.training.logging import (
    PICTURED,
    Speedometer,
    evaluation_table,
    log_pictures,
)
from musicvae.training.trackers import check_trackers, end_training, log
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


def test_the_table_compares_an_evaluation_with_the_best():
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


@pytest.mark.parametrize(
    "settings", [{}, {"hits_as_controls": True}], ids=["drums", "conditioned on hits"]
)
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


def test_a_tracker_that_cannot_write_is_dropped_with_a_message(tmp_path, capsys):
    config = ProjectConfiguration(logging_dir=str(tmp_path / "logs"))
    accelerator = Accelerator(log_with="tensorboard", project_config=config)
    accelerator.init_trackers("run")
    log(accelerator, {"loss": 1.0}, step=1)
    shutil.rmtree(tmp_path / "logs")
    for step in 2, 3:
        log(accelerator, {"loss": 1.0}, step)
    end_training(accelerator)
    message = "tensorboard: .*No such file or directory.*: it logs nothing more of this run"
    assert len(re.findall(message, capsys.readouterr().out)) == 1


def full(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_disk_that_is_full_for_the_logs_costs_no_checkpoint(
    train, uninterrupted, tmp_path, monkeypatch, capsys
):
    flushes = chain([lambda: None] * 3, repeat(full))  # there is room for a beginning
    flush = "tensorboard.summary.writer.record_writer.RecordWriter.flush"
    monkeypatch.setattr(flush, lambda writer: next(flushes)())
    train(tmp_path, **RUN)
    assert_ends_like(tmp_path, uninterrupted)
    assert capsys.readouterr().out.count("No space left on device: it logs nothing more") == 1


def test_pictures_that_find_no_room_are_left_out(loaders, tmp_path, monkeypatch, capsys):
    accelerator = SimpleNamespace(trackers=[SimpleNamespace(log_images=full)], is_main_process=True)
    monkeypatch.setattr("musicvae.training.logging.draw_piano_rolls", full)
    log_pictures(accelerator, tiny_model(), loaders[1], parse().training, step=3)
    assert "pictures of step 3: [Errno 28]" in capsys.readouterr().out


def test_a_tracker_that_is_not_installed_is_refused():
    check_trackers(["tensorboard"])
    with pytest.raises(ValueError, match="^report_to: found nothing, expected .* tensorboard"):
        check_trackers(["tensorboard", "nothing"])
