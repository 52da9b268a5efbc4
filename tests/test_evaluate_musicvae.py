"""The whole evaluation of a model, from its folder to the report and the pictures."""

import json
from pathlib import Path

import pytest
import torch
from played_windows import random_windows
from tiny_models import random_model
from training_runs import tiny_model

import evaluate_musicvae
from evaluate_musicvae import other_split, parse_arguments, parts_of
from evaluation.report import LEGENDS

pytestmark = pytest.mark.usefixtures("one_cpu_thread")

KINDS = {
    "expressive": {},
    "hits": {"velocity_bins": 0, "timing_bins": 0},
    "humanize": {"input_transform": "humanize", "hits_as_controls": True},
    "tap": {"input_transform": "tap"},
}


@pytest.fixture
def evaluate(demo_grooves, tmp_path, monkeypatch):
    """Runs the script on the demo grooves and a new model, whose folder it returns."""

    def run(**settings) -> Path:
        torch.manual_seed(0)
        model = tiny_model(**settings)
        torch.nn.init.normal_(model.attribute_vectors)
        model.save_pretrained(tmp_path / "model")
        words = f"evaluate_musicvae.py {tmp_path}/model --data_dir {demo_grooves} --num_samples 8"
        monkeypatch.setattr("sys.argv", words.split())
        evaluate_musicvae.main()
        return tmp_path / "model"

    return run


@pytest.mark.parametrize("settings", KINDS.values(), ids=KINDS)
def test_a_model_of_any_kind_is_evaluated(evaluate, settings):
    folder = evaluate(**settings) / "evaluation"
    report = json.loads((folder / "evaluation.json").read_text())
    assert report["split"] == "test"
    assert report["command"].startswith("python evaluate_musicvae.py ")
    assert set(report["measures"]) <= set(LEGENDS)
    assert {"reconstruction", "samples", "attributes"} <= set(report["measures"])
    names = {path.name for path in folder.iterdir()}
    assert {"evaluation.json", "evaluation.md", "reconstructions.png"} < names
    assert not [name for name in names if "tmp" in name]


@pytest.mark.parametrize(
    ("settings", "parts"),
    [
        ({}, ["reconstruction", "samples", "interpolation"]),
        (
            {"input_transform": "tap"},
            ["reconstruction", "transformation", "samples", "interpolation"],
        ),
        ({"hits_as_controls": True}, ["reconstruction", "samples"]),
    ],
    ids=["reconstructs", "transforms", "is told the hits"],
)
def test_a_model_is_measured_in_what_has_a_meaning_for_it(settings, parts):
    model, windows = random_model(**settings), [random_windows()] * 4
    assert list(parts_of(model, *windows, batch_size=4, seed=0)) == parts
    model.attribute_vectors[0] = 1
    assert list(parts_of(model, *windows, batch_size=4, seed=0)) == [*parts, "attributes"]


def test_a_split_is_compared_with_another():
    assert [other_split(split) for split in ("train", "validation", "test")] == [
        "validation",
        "train",
        "validation",
    ]


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ("--batch_size 0", "batch_size: found 0, expected at least 1"),
        ("--num_samples 1", "num_samples: found 1, expected at least 2"),
        ("--seed -1", "seed: found -1, expected at least 0"),
        ("--data midi_folder", "data_dir: found none, expected the folder of your MIDI files"),
        ("", "output_dir: found none, expected one for a model that is in no folder"),
    ],
)
def test_bad_arguments_are_refused(words, error, capsys):
    with pytest.raises(SystemExit):
        parse_arguments(["user/drummer", *words.split()])
    assert error in capsys.readouterr().err
