"""Whole runs of train_accelerate.py, in this process and through the launcher."""

import math
import re

import pytest
import torch
from safetensors.torch import load_file
from training_runs import (
    LEARNED_LAST,
    METRICS,
    RUN,
    TWO_PROCESSES,
    WEIGHTS,
    assert_ends_like,
    best_checkpoint,
    differing_weights,
    launch,
    parse,
    scalars,
)

from train_accelerate import learning_rate


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (0, 0.001),
        (1, 0.000999901),
        (1000, 0.000905784564622960792),
        (10_000, 0.000374182435968600625),
        (1_000_000, 0.00001),
    ],
)
def test_the_learning_rate_decays_as_in_the_original(step, expected):
    assert learning_rate(parse().training, step) == pytest.approx(expected, rel=1e-12)


def test_the_weight_of_the_kl_divergence_is_annealed(uninterrupted):
    values = {name: by_step[10] for name, by_step in scalars(uninterrupted).items()}
    kl = values["train/kl_bits"] * math.log(2)
    beta = 1 - 0.9**9  # the tenth step is number 9
    loss = values["train/reconstruction_loss"] + beta * kl
    assert values["train/loss"] == pytest.approx(loss, rel=1e-6)


def test_the_optimiser_follows_the_schedule(uninterrupted):
    state = torch.load(uninterrupted / "checkpoints/checkpoint-10/optimizer.bin")
    expected = learning_rate(parse().training, 9)
    assert [group["lr"] for group in state["param_groups"]] == [expected]


@pytest.mark.parametrize(
    "settings",
    [{}, {"num_workers": 1}, {"eval_steps": 3}],
    ids=["again", "with a worker", "evaluated at other steps"],
)
def test_the_same_seed_gives_the_same_weights(settings, train, uninterrupted, tmp_path):
    assert_ends_like(train(tmp_path, **RUN | settings), uninterrupted)


def test_another_seed_gives_another_model(train, uninterrupted, tmp_path):
    train(tmp_path, **RUN, seed=1)
    assert best_checkpoint(tmp_path)[1] != best_checkpoint(uninterrupted)[1]


@pytest.mark.parametrize(
    "settings",
    [
        {"hit_dropout": 0.5},
        {"velocity_scaling": 0.5},
        {"note_dropout": 0.5},
        {"sampling_rate": 0.5, "sampling_method": "parallel"},
        {"sampling_rate": 0.5, "sampling_method": "exact"},
    ],
    ids=["hit dropout", "velocity scaling", "note dropout", "parallel draws", "exact draws"],
)
def test_what_is_asked_for_changes_training(settings, train, uninterrupted, tmp_path):
    train(tmp_path, **RUN, **settings)
    assert best_checkpoint(tmp_path)[1] != best_checkpoint(uninterrupted)[1]


def test_training_that_diverges(train, tmp_path):
    with pytest.raises(FloatingPointError, match="^validation loss: found (inf|nan), expected"):
        train(tmp_path, max_steps=4, eval_steps=2, learning_rate=1e30)
    assert not (tmp_path / WEIGHTS).exists()


def test_an_output_dir_that_is_a_file(train, tmp_path):
    path = tmp_path / "file"
    path.write_text("mine")
    with pytest.raises(FileExistsError, match=str(path)):
        train(path)
    with pytest.raises(NotADirectoryError, match=str(path)):
        train(path / "below")
    assert path.read_text() == "mine"


def test_the_validation_loss_falls(quickstart):
    _, printed = quickstart
    shown = re.findall(r"step (\d+): validation loss ([\d.]+), elbo", printed)
    steps, losses = zip(*shown, strict=True)
    assert steps == ("10", "20", "30")
    assert float(losses[0]) > float(losses[1]) > float(losses[2])


def test_tensorboard_shows_training_and_validation(quickstart):
    output_dir, printed = quickstart
    shown = scalars(output_dir)
    training = {"loss", "reconstruction_loss", "kl_bits", "sequences_per_second"}
    training |= {"hits_loss", "velocity_loss", "timing_loss", "skipped_steps"}
    expected = {f"train/{name}" for name in training} | {f"validation/{name}" for name in METRICS}
    # Drums that are silent wherever that is most likely, as at first, have no hit to be wrong.
    perhaps = {
        "validation/velocity_mae_teacher_forced",
        "validation/timing_mae_ms_teacher_forced",
    }
    assert set(shown) | perhaps == expected
    assert all(list(shown[name]) == [10, 20, 30] for name in expected - perhaps)
    for step, loss in shown["validation/loss"].items():
        assert f"step {step}: validation loss {loss:.4g}, " in printed


@pytest.mark.slow
def test_two_processes_train_one_model(tmp_path):
    output_dir = tmp_path / "two"
    for settings in {"max_steps": 20}, {"max_steps": 30, "resume_from_checkpoint": "latest"}:
        settings |= {"eval_steps": 10, "learning_rate": 0.01}
        printed = launch(output_dir, *TWO_PROCESSES, **settings)
        assert "2 process(es) on cpu" in printed
    losses = scalars(output_dir)["validation/loss"]
    assert losses[10] > losses[20] > losses[30]
    best, _ = best_checkpoint(output_dir)
    assert differing_weights(output_dir, best) == LEARNED_LAST


@pytest.mark.slow
def test_training_in_bfloat16(tmp_path):
    output_dir = tmp_path / "bf16"
    settings = {"max_steps": 30, "eval_steps": 10, "learning_rate": 0.01}
    printed = launch(output_dir, mixed_precision="bf16", **settings)
    assert "mixed precision bf16" in printed
    losses = scalars(output_dir)["validation/loss"]
    assert losses[10] > losses[20] > losses[30]
    exported = load_file(output_dir / WEIGHTS)
    assert {tensor.dtype for tensor in exported.values()} == {torch.float32}
