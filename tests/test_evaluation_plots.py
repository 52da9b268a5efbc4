"""The pictures of an evaluation, and what they are drawn from."""

import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from factories import GIVEN_HITS, NO_EXPRESSION, nine_drum_model, nine_drum_windows

from musicvae.evaluation.evaluate import choose_parts
from musicvae.evaluation.plots import (
    STYLE_COLORS,
    draw_all,
    draw_distributions,
    draw_reconstructions,
    group_styles,
    principal_components,
)
from musicvae.evaluation.samples import draw_samples

ALL = {f"{name}.png" for name in ("reconstructions", "distributions", "interpolation")}
ALL |= {"latent_space.png"}


@pytest.mark.parametrize(
    ("settings", "missing"),
    [
        pytest.param({}, set(), id="all"),
        pytest.param(NO_EXPRESSION, set(), id="hits alone"),
        pytest.param(
            GIVEN_HITS | {"input_transform": "humanize"}, {"interpolation.png"}, id="humanize"
        ),
        pytest.param({"input_transform": "tap"}, set(), id="tap"),
        pytest.param({"input_transform": "remove_drums"}, set(), id="remove drums"),
        pytest.param({"bars": 1}, set(), id="one bar"),
    ],
)
def test_pictures_are_as_wide_as_a_readme(tmp_path, settings, missing):
    model = nine_drum_model(**settings)
    windows = nine_drum_windows()
    steps = model.config.num_steps
    windows.piano_roll, windows.timing = (
        windows.piano_roll[..., :steps],
        windows.timing[..., :steps],
    )
    windows.style = ["rock", "funk/groove1", "rock/folk", "", "jazz", "rock"]
    samples = draw_samples(model, windows, 5, 1.0, seed=0)
    draw_all(choose_parts(model, None), model, windows, samples, tmp_path, seed=0)
    assert {path.name for path in tmp_path.iterdir()} == ALL - missing
    assert {width_of(path) for path in tmp_path.iterdir()} == {900}


@pytest.mark.parametrize(
    ("part", "names"),
    [
        ("reconstruction", {"reconstructions.png", "latent_space.png"}),
        ("samples", {"distributions.png"}),
        ("interpolation", {"interpolation.png"}),
        ("attributes", set()),
    ],
)
def test_each_part_has_its_pictures(tmp_path, part, names):
    model, windows = nine_drum_model(), nine_drum_windows()
    draw_all([part], model, windows, windows, tmp_path, seed=0)
    assert {path.name for path in tmp_path.iterdir()} == names


def width_of(path: Path) -> int:
    width, _ = struct.unpack(">II", path.read_bytes()[16:24])
    return width


def test_the_seed_chooses_the_windows(tmp_path):
    model, windows, path = nine_drum_model(), nine_drum_windows(), tmp_path / "picture.png"
    drawn = []
    for seed in (0, 0, 1):
        draw_reconstructions(model, windows, seed, path)
        drawn.append(path.read_bytes())
    assert drawn[0] == drawn[1]
    assert drawn[0] != drawn[2]


def test_samples_without_hits_still_make_a_picture(tmp_path):
    windows, config = nine_drum_windows(), nine_drum_model().config
    silence = replace(windows, piano_roll=torch.zeros_like(windows.piano_roll))
    draw_distributions(windows, silence, config, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").exists()


def test_points_on_a_line_have_one_component():
    line = np.array([[3.0, 4.0, 0.0]]) * np.array([[-1], [0], [1]]) + 7
    points, shares = principal_components(line)
    assert shares == pytest.approx([1, 0])
    assert np.abs(points) == pytest.approx(np.array([[5, 0], [0, 0], [5, 0]]))


def test_rare_styles_are_shown_together():
    styles = np.array([f"style {i}" for i in range(9) for _ in range(9 - i)])
    groups = group_styles(styles)
    assert [name for name, _, _ in groups] == [f"style {i}" for i in range(7)] + ["other"]
    assert [shown.sum() for _, _, shown in groups] == [9, 8, 7, 6, 5, 4, 3, 2 + 1]
    assert len({color for _, color, _ in groups}) == len(STYLE_COLORS) + 1
