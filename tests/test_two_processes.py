"""Two processes: the same model as of one, of the same windows, which can be resumed too."""

from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import traced_training
from accelerate import Accelerator
from accelerate.utils import DataLoaderConfiguration
from traced_training import read_traces, window_names
from training_runs import (
    LEARNED_LAST,
    RECIPES,
    TINY,
    TWO_PROCESSES,
    assert_ends_like,
    best_checkpoint,
    differing_weights,
    fixed_noise,
    launch,
    parse,
    scalars,
)

from modeling_musicvae import MusicVAEModel
from musicvae.data.batches import collate, load_data
from musicvae.evaluation.metrics import evaluate

pytestmark = pytest.mark.slow

# 146 windows to train on, and 29 to validate: the last batch is neither full nor even.
DATA = {"data": "groove", "hop_bars": 4, "batch_size": 8}
ONCE = {"max_steps": 50, "eval_steps": 50, "free_bits": 0}
IN_PARTS = {
    "max_steps": 30,
    "decay_steps": 30,
    "eval_steps": 10,
    "gradient_accumulation_steps": 2,
    "num_workers": 1,
    "learning_rate": 0.01,
    "encoder_hit_dropout": 0.2,
}


def launch_two(output_dir: Path, **arguments) -> Path:
    """Trains in two processes by the launcher, see `traced_training`."""
    script = Path(traced_training.__file__)
    printed = launch(output_dir, *TWO_PROCESSES, script=script, **DATA | arguments)
    assert "2 processes on cpu" in printed
    return output_dir


@pytest.fixture(scope="module")
def with_fixed_noise(demo_grooves, tmp_path_factory) -> Path:
    """A run of two processes with the same noise for every window."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FIXED_NOISE", "1")
        output_dir = tmp_path_factory.mktemp("two") / "with_fixed_noise"
        return launch_two(output_dir, data_dir=demo_grooves, **ONCE)


@pytest.fixture(scope="module")
def uninterrupted_two(demo_grooves, tmp_path_factory) -> Path:
    output_dir = tmp_path_factory.mktemp("two") / "uninterrupted"
    return launch_two(output_dir, data_dir=demo_grooves, **IN_PARTS)


def test_together_they_see_every_window_once_an_epoch(with_fixed_noise, demo_grooves):
    train_loader, _, _ = load_data(Accelerator(), parse(**DATA, data_dir=demo_grooves))
    every = window_names(collate(list(train_loader.dataset))["timing"])
    parts = zip(*(trace["windows"] for trace in read_traces(with_fixed_noise)), strict=True)
    stream = list(chain.from_iterable(first + second for first, second in parts))
    assert len(stream) == ONCE["max_steps"] * DATA["batch_size"]
    for start in (0, len(every)):
        assert sorted(stream[start : start + len(every)]) == sorted(every)


def test_together_they_read_every_window_of_a_stream_once_an_epoch(demo_grooves, tmp_path):
    output_dir = launch_two(tmp_path / "run", data_dir=demo_grooves, streaming=True, max_steps=30)
    first, second = (
        list(chain.from_iterable(trace["windows"])) for trace in read_traces(output_dir)
    )
    assert len(first) == len(second) == 30 * DATA["batch_size"] // 2
    train_loader, _, _ = load_data(Accelerator(), parse(**DATA, data_dir=demo_grooves))
    every = sorted(window_names(collate(list(train_loader.dataset))["timing"]))
    # The files that each reads have not the same number of windows.
    assert any(sorted(first[:n] + second[: len(every) - n]) == every for n in range(len(every)))


def test_each_takes_half_of_every_part_and_draws_noise_of_its_own(uninterrupted_two):
    traces = read_traces(uninterrupted_two)
    for trace in traces:
        assert [len(windows) for windows in trace["windows"]] == [2] * 60
    noise = np.concatenate([np.concatenate(trace["noise"]) for trace in traces])
    assert noise.shape == (2 * 60 * 2, TINY["latent_size"])
    assert len(np.unique(noise.round(3), axis=0)) == len(noise)
    assert abs(noise.mean()) < 0.1 and abs(noise.std() - 1) < 0.1


def test_they_make_the_model_that_one_process_makes(
    with_fixed_noise, train, one_cpu_thread, tmp_path
):
    with fixed_noise():
        train(tmp_path, config=RECIPES / "quickstart.yaml", **DATA | ONCE)
    _, metrics = best_checkpoint(with_fixed_noise)
    _, metrics_of_one = best_checkpoint(tmp_path)
    assert metrics["loss"] == pytest.approx(metrics_of_one["loss"], rel=1e-4)


def test_metrics_count_every_window_once(with_fixed_noise, demo_grooves, one_cpu_thread):
    accelerator = Accelerator(dataloader_config=DataLoaderConfiguration(split_batches=True))
    _, eval_loader, _ = load_data(accelerator, parse(**DATA, data_dir=demo_grooves))
    assert len(eval_loader.dataset) % DATA["batch_size"] % 2 == 1
    model = MusicVAEModel.from_pretrained(with_fixed_noise)
    with fixed_noise():
        metrics_of_one = evaluate(accelerator, model, accelerator.prepare(eval_loader), seed=0)
    _, metrics = best_checkpoint(with_fixed_noise)
    drawn = {name for name in metrics if name.endswith("_sampled")}
    assert len(metrics) > len(drawn) > 0
    for name in metrics.keys() - drawn:
        assert metrics[name] == pytest.approx(metrics_of_one[name], rel=1e-6), name


def test_a_run_that_was_stopped_is_resumed_bit_for_bit(uninterrupted_two, demo_grooves, tmp_path):
    output_dir = tmp_path / "stopped"
    launch_two(output_dir, data_dir=demo_grooves, **IN_PARTS | {"max_steps": 23})
    before = read_traces(output_dir)
    launch_two(output_dir, data_dir=demo_grooves, **IN_PARTS, resume_from_checkpoint="latest")
    assert_ends_like(output_dir, uninterrupted_two)
    assert best_checkpoint(output_dir)[1] == best_checkpoint(uninterrupted_two)[1]
    traces = zip(before, read_traces(output_dir), read_traces(uninterrupted_two), strict=True)
    for first, rest, whole in traces:
        assert {name: first[name] + rest[name] for name in whole} == whole


def test_they_train_a_model_that_gets_better(uninterrupted_two):
    losses = scalars(uninterrupted_two)["validation/loss"]
    assert losses[10] > losses[20] > losses[30]
    best, _ = best_checkpoint(uninterrupted_two)
    learned = set(differing_weights(uninterrupted_two, best))
    assert {"latent_mean", "latent_scale"} <= learned <= set(LEARNED_LAST)
