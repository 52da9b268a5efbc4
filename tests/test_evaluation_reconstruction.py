"""The measures of reconstruction, against those of training and of models that are known."""

import pytest
import torch
from accelerate import Accelerator
from factories import EXPRESSIVE, OUTPUTS, random_model, random_windows
from torch.utils.data import DataLoader

from musicvae.evaluation import reconstruction
from musicvae.evaluation.drum_metrics import join, measure_drums
from musicvae.evaluation.metrics import evaluate
from musicvae.evaluation.reconstruction import measure_reconstruction

pytestmark = pytest.mark.usefixtures("one_cpu_thread")

WINDOWS, TRAIN = random_windows(), random_windows(9)
WAYS = ["teacher_forced", "sampled", "greedy"]
BASELINES = ["silence", "most_frequent", "nearest"]


@pytest.mark.parametrize("output", OUTPUTS.values(), ids=OUTPUTS)
def test_figures_are_those_of_training(output):
    model = random_model(**output)
    measures = measure_reconstruction(model, WINDOWS, TRAIN, batch_size=4, seed=5)
    columns = ("piano_roll", "timing", "bpm")
    rows = zip(*(getattr(WINDOWS, name) for name in columns), strict=True)
    loader = DataLoader([dict(zip(columns, row, strict=True)) for row in rows], 4)
    of_training = evaluate(Accelerator(), model, loader, seed=5)
    del of_training["loss"]
    for name, value in of_training.items():
        measure, way = next(
            ((name.removesuffix(f"_{way}"), way) for way in WAYS if name.endswith(way)),
            (name, None),
        )
        figures = measures["drums"][way] if way else measures["objective"]
        assert figures[measure].value == pytest.approx(value, rel=1e-5), name


def test_greedy_drums_are_the_models_own_reconstructions():
    model = random_model()
    torch.nn.init.constant_(model.encoder.std.bias, 5)  # draws of the posterior are far apart
    drums = join([model.reconstruct(WINDOWS.piano_roll, WINDOWS.timing, temperature=0)], WINDOWS)
    measures = measure_reconstruction(model, WINDOWS, TRAIN, len(WINDOWS), 0)
    assert measures["drums"]["greedy"] == measure_drums(drums, WINDOWS, model.config, 0)


def test_the_same_seed_gives_the_same_figures():
    first, second, other = (
        measure_reconstruction(random_model(), WINDOWS, TRAIN, 4, seed) for seed in (0, 0, 1)
    )
    assert first == second
    assert first["drums"]["sampled"] != other["drums"]["sampled"]


def test_baselines_are_measured_next_to_a_model_that_has_to_find_the_hits():
    measures = measure_reconstruction(random_model(), WINDOWS, WINDOWS, 4, 0)
    assert list(measures["drums"]) == WAYS + BASELINES
    assert measures["drums"]["nearest"]["hit_f1"].value == 1  # the windows are those of training


@pytest.mark.parametrize(
    "settings",
    [{"input_transform": "tap"}, {"input_transform": "humanize"}, {"hits_as_controls": True}],
    ids=["tap", "humanize", "given the hits"],
)
@pytest.mark.parametrize("output", EXPRESSIVE.values(), ids=EXPRESSIVE)
def test_baselines_with_another_input_than_the_model_are_left_out(output, settings):
    measures = measure_reconstruction(random_model(**output, **settings), WINDOWS, TRAIN, 4, 0)
    assert list(measures["drums"]) == WAYS


def test_latents_are_active_whose_mean_depends_on_the_drums():
    model = random_model()
    torch.nn.init.zeros_(model.encoder.mean.weight[:2])
    active = measure_reconstruction(model, WINDOWS, TRAIN, 4, 0)["objective"]["active_latents"]
    assert active == (model.config.latent_size - 2, None, None)


def test_the_gap_is_the_loss_of_the_split_less_that_of_training_windows():
    measures = measure_reconstruction(random_model(), WINDOWS, TRAIN, 4, 0)
    found = measures["generalization"]
    assert set(found["gap"]) == {"reconstruction_loss", "hits_loss", "velocity_loss", "timing_loss"}
    for name, gap in found["gap"].items():
        difference = found["split"][name].value - found["training_windows"][name].value
        assert gap.value == pytest.approx(difference)
        assert gap.low < gap.value < gap.high
        assert found["split"][name] == measures["objective"][name]


def test_training_windows_are_spread_evenly(monkeypatch):
    monkeypatch.setattr(reconstruction, "NUM_TRAINING_WINDOWS", 3)
    chosen = TRAIN.select([0, 4, 8])
    some, same = (
        measure_reconstruction(random_model(), WINDOWS, train, 9, 0)["generalization"]
        for train in (TRAIN, chosen)
    )
    losses = (each["training_windows"]["hits_loss"].value for each in (some, same))
    assert next(losses) == next(losses)
