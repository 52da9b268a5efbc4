"""Whole runs of train_accelerate.py, in this process and through the launcher."""

import json
import math
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from training_runs import (
    LEARNED_LAST,
    METRICS,
    RUN,
    WEIGHTS,
    assert_ends_like,
    best_checkpoint,
    differing_weights,
    fixed_noise,
    launch,
    parse,
    scalars,
    tiny_model,
)

from modeling_musicvae import MusicVAEModel
from musicvae.training.checkpoints import checkpoints
from musicvae.training.trainer import learning_rate, parameter_groups


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (0, 1.0 / 5),
        (3, 4 / 5 * (0.1 + 0.9 * (1 + math.cos(0.3 * math.pi)) / 2)),
        (5, 0.55),
        (10, 0.1),
        (11, 0.1),
    ],
    ids=["first", "warm-up", "half of the decay", "last", "after the decay"],
)
def test_the_learning_rate_warms_up_and_decays_by_a_cosine(step, expected):
    settings = {"learning_rate": 1, "min_learning_rate": 0.1, "warmup_steps": 4, "decay_steps": 10}
    assert learning_rate(parse(**settings).training, step) == pytest.approx(expected)


def test_the_learning_rate_decays_over_the_whole_run_unless_asked_otherwise(train, tmp_path):
    train(tmp_path, max_steps=2, save_steps=1)
    last = torch.load(tmp_path / "checkpoints/checkpoint-2/optimizer.bin")
    expected = learning_rate(parse(warmup_steps=0, decay_steps=2).training, 1)
    assert {group["lr"] for group in last["param_groups"]} == {expected}


def test_weights_are_decayed_and_biases_are_not():
    model = tiny_model()
    decayed, others = parameter_groups(model, 0.1)
    assert (decayed["weight_decay"], others["weight_decay"]) == (0.1, 0)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    decayed, others = ({names[id(each)] for each in group["params"]} for group in (decayed, others))
    assert decayed | others == set(names.values())
    assert others == {name for name in names.values() if "bias" in name}


def test_the_weight_of_the_kl_divergence_is_annealed(uninterrupted):
    values = {name: by_step[10] for name, by_step in scalars(uninterrupted).items()}
    kl = values["train/kl_bits"] * math.log(2)
    beta = 1 - 0.9**9  # the tenth step is number 9
    loss = values["train/reconstruction_loss"] + beta * kl
    assert values["train/loss"] == pytest.approx(loss, rel=1e-6)


def test_the_optimiser_follows_the_schedule(uninterrupted):
    state = torch.load(uninterrupted / "checkpoints/checkpoint-10/optimizer.bin")
    expected = learning_rate(parse(**RUN, warmup_steps=0).training, 9)
    assert {group["lr"] for group in state["param_groups"]} == {expected}


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
        {"recombination": 1.0},
        {"hit_dropout": 0.5},
        {"velocity_scaling": 0.5},
        {"dropout": 0.5},
        {"weight_decay": 0.5},
        {"encoder_hit_dropout": 0.5},
        {"scheduled_sampling_rate": 0.5},
    ],
    ids=[
        "recombined",
        "hit dropout",
        "velocity scaling",
        "dropout",
        "weight decay",
        "encoder hit dropout",
        "scheduled sampling",
    ],
)
def test_what_is_asked_for_changes_training(settings, train, uninterrupted, tmp_path):
    train(tmp_path, **RUN, **settings)
    assert best_checkpoint(tmp_path)[1] != best_checkpoint(uninterrupted)[1]


def test_training_that_diverges(train, tmp_path):
    with pytest.raises(FloatingPointError, match="^validation loss: found (inf|nan), expected"):
        train(tmp_path, max_steps=4, eval_steps=2, learning_rate=1e30)
    assert not (tmp_path / WEIGHTS).exists()


@pytest.fixture
def poison(monkeypatch) -> Callable[..., None]:
    """Makes the loss of some training steps, counted from 0, infinite."""
    forward = MusicVAEModel.forward

    def poison(*steps: int) -> None:
        def poisoned(self: MusicVAEModel, *drums, step: int | None = None, **others):
            output = forward(self, *drums, step=step, **others)
            if step in steps:
                output.loss = output.loss * math.inf
            return output

        monkeypatch.setattr(MusicVAEModel, "forward", poisoned)

    return poison


def test_a_step_that_is_not_finite_is_skipped(poison, train, tmp_path):
    poison(2)
    train(tmp_path, max_steps=3, eval_steps=1, save_steps=1)
    before, after = checkpoints(tmp_path)  # the best and the last one
    assert (before.name, after.name) == ("checkpoint-2", "checkpoint-3")
    assert differing_weights(before, after) == []
    progress = [json.loads((path / "progress.json").read_text()) for path in (before, after)]
    assert [values["skipped_steps"] for values in progress] == [0, 1]


@pytest.mark.parametrize("parts", [1, 4], ids=["whole", "one part of four"])
def test_skipped_steps_are_counted_and_shown_and_training_continues(
    parts, poison, train, tmp_path, capsys
):
    poison(1, 4)
    small = {"hop_bars": 4, "batch_size": 16, "gradient_accumulation_steps": parts}
    train(tmp_path, **small, max_steps=10, eval_steps=5)
    shown = scalars(tmp_path)
    assert shown["train/skipped_steps"] == {10: 2}
    assert shown["validation/loss"][10] < shown["validation/loss"][5]
    assert "2 steps skipped" in capsys.readouterr().err


def test_too_many_steps_in_a_row_that_are_not_finite(poison, train, tmp_path):
    poison(1, 2, 4, 5, 6, 7)
    message = (
        "^step 7: found 3 steps in a row whose gradient is not finite, expected at most 2. "
        f"The last good checkpoint is {tmp_path}/checkpoints/checkpoint-6"
    )
    with pytest.raises(FloatingPointError, match=message):
        train(tmp_path, max_steps=10, save_steps=2, max_skipped_steps=2)
    assert not (tmp_path / WEIGHTS).exists()


IN_PARTS = {"hop_bars": 4, "batch_size": 8, "max_steps": 10, "eval_steps": 10, "free_bits": 0}


@pytest.fixture(scope="module")
def in_one_part(train, tmp_path_factory) -> Path:
    with fixed_noise():
        return train(tmp_path_factory.mktemp("runs") / "in_one_part", **IN_PARTS)


@pytest.mark.parametrize("parts", [2, 4, 8])
def test_a_step_in_parts_is_the_step_in_one(parts, in_one_part, train, tmp_path):
    with fixed_noise():
        train(tmp_path, **IN_PARTS, gradient_accumulation_steps=parts)
    weights, expected = (load_file(path / WEIGHTS) for path in (tmp_path, in_one_part))
    for name in weights.keys() - LEARNED_LAST:
        torch.testing.assert_close(weights[name], expected[name], rtol=0, atol=1e-6)


def test_an_output_dir_that_is_a_file(train, tmp_path):
    path = tmp_path / "file"
    path.write_text("mine")
    with pytest.raises(NotADirectoryError, match=str(path)):
        train(path)
    with pytest.raises(NotADirectoryError, match=str(path)):
        train(path / "below")
    assert path.read_text() == "mine"


def test_the_validation_loss_falls(quickstart):
    _, printed = quickstart
    shown = re.findall(r"step (\d+) +validation.*\n +loss +([\d.]+)", printed)
    steps, losses = zip(*shown, strict=True)
    assert steps == ("10", "20", "30")
    assert float(losses[0]) > float(losses[1]) > float(losses[2])


def test_tensorboard_shows_training_and_validation(quickstart):
    output_dir, printed = quickstart
    shown = scalars(output_dir)
    training = {"loss", "reconstruction_loss", "kl_bits", "sequences_per_second"}
    training |= {"hits_loss", "velocity_loss", "timing_loss", "skipped_steps", "data_wait"}
    expected = {f"train/{name}" for name in training} | {f"validation/{name}" for name in METRICS}
    # Drums that are silent by argmax, as at first, have no hit to be wrong.
    perhaps = {
        "validation/velocity_mae_teacher_forced",
        "validation/timing_mae_ms_teacher_forced",
    }
    assert set(shown) | perhaps == expected
    assert all(list(shown[name]) == [10, 20, 30] for name in expected - perhaps)
    assert all(0 < share < 1 for share in shown["train/data_wait"].values())


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
