"""The whole evaluation of a model, from its folder to the report and the pictures."""

import json
from pathlib import Path

import pytest
import torch
from factories import random_model
from safetensors.torch import load_file
from training_runs import LEARNED_LAST, tiny_model

from musicvae.cli import main
from musicvae.evaluation.evaluate import choose_parts, other_split
from musicvae.evaluation.report import LEGENDS
from musicvae.tasks import SAMPLE_TEMPERATURE

pytestmark = pytest.mark.usefixtures("one_cpu_thread")

KINDS = {
    "expressive": {},
    "hits": {"velocity_bins": 0, "timing_bins": 0},
    "humanize": {"input_transform": "humanize", "hits_as_controls": True},
    "tap": {"input_transform": "tap"},
}


@pytest.fixture
def evaluate(demo_grooves, tmp_path):
    """Runs the command on the demo grooves and a new model, whose folder it returns."""

    def run(*words: str, **settings) -> Path:
        torch.manual_seed(0)
        model = tiny_model(**settings)
        torch.nn.init.normal_(model.attribute_vectors)
        model.save_pretrained(tmp_path / "model")
        command = f"evaluate {tmp_path}/model --data_dir {demo_grooves} --num_samples 8"
        main([*command.split(), *words])
        return tmp_path / "model"

    return run


@pytest.mark.parametrize("settings", KINDS.values(), ids=KINDS)
def test_a_model_of_any_kind_is_evaluated(evaluate, settings):
    folder = evaluate(**settings) / "evaluation"
    report = json.loads((folder / "evaluation.json").read_text())
    assert report["split"] == "test"
    assert report["command"].startswith("musicvae evaluate ")
    assert set(report["measures"]) <= set(LEGENDS)
    assert {"reconstruction", "samples", "attributes"} <= set(report["measures"])
    names = {path.name for path in folder.iterdir()}
    assert {"evaluation.json", "evaluation.md", "reconstructions.png"} < names
    assert not [name for name in names if "tmp" in name]


def test_only_the_parts_asked_for_are_measured(evaluate):
    folder = evaluate("--parts", "reconstruction") / "evaluation"
    report = json.loads((folder / "evaluation.json").read_text())
    assert list(report["measures"]) == ["reconstruction"]
    assert {path.name for path in folder.glob("*.png")} == {
        "reconstructions.png",
        "latent_space.png",
    }


@pytest.mark.parametrize(
    ("words", "settings", "temperature"),
    [
        pytest.param([], {}, SAMPLE_TEMPERATURE, id="unconditional"),
        pytest.param([], {"input_transform": "humanize", "hits_as_controls": True}, 1, id="hits"),
        pytest.param(["--temperature", "0.5"], {}, 0.5, id="given"),
    ],
)
def test_new_drums_are_drawn_at_a_temperature_that_the_report_says(
    words, settings, temperature, evaluate
):
    folder = evaluate("--parts", "samples", *words, **settings) / "evaluation"
    report = json.loads((folder / "evaluation.json").read_text())
    assert report["temperature"] == temperature


def test_the_report_says_what_tells_the_model_from_others(evaluate):
    folder = evaluate("--parts", "reconstruction", decoder="flat", free_bits=7, max_beta=0.3)
    report = json.loads((folder / "evaluation/evaluation.json").read_text())
    weights = load_file(folder / "model.safetensors")
    parameters = sum(tensor.numel() for tensor in weights.values())
    learned_last = sum(weights[name].numel() for name in LEARNED_LAST if name in weights)
    assert report["parameters"] == parameters - learned_last
    facts = {"decoder": "flat", "free_bits": 7, "max_beta": 0.3, "bars": 4}
    assert facts.items() <= report.items()


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
    ids=["reconstructs", "transforms", "is conditioned on the hits"],
)
def test_a_model_is_measured_in_what_has_a_meaning_for_it(settings, parts):
    model = random_model(**settings)
    assert choose_parts(model, None) == parts
    model.attribute_vectors[0] = 1
    assert choose_parts(model, None) == [*parts, "attributes"]
    model.config.styles = ["funk"]
    assert choose_parts(model, None) == [*parts, "attributes", "styles"]
    assert choose_parts(model, ["samples", "reconstruction"]) == ["reconstruction", "samples"]


@pytest.mark.parametrize("part", ["transformation", "drums"])
def test_a_part_without_a_meaning_is_refused(part):
    message = f"parts: found {part}, expected some of .*: reconstruction, samples, interpolation$"
    with pytest.raises(ValueError, match=message):
        choose_parts(random_model(), ["samples", part])


def test_a_split_is_compared_with_another():
    assert [other_split(split) for split in ("train", "validation", "test")] == [
        "validation",
        "train",
        "validation",
    ]


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ("--batch_size 0", "batch_size: found 0, expected a whole number, 1 or more"),
        ("--num_samples 1", "num_samples: found 1, expected a whole number, 2 or more"),
        ("--seed -1", "seed: found -1, expected a whole number, 0 or more"),
        ("--data midi_folder", "data_dir: found none, expected the folder of your MIDI files"),
        ("", "output_dir: found none, and no model folder user/drummer, expected a folder to"),
    ],
)
def test_bad_arguments_are_refused(words, error, capsys):
    with pytest.raises(SystemExit) as exit:
        main(["evaluate", "user/drummer", *words.split()])
    assert error in f"{exit.value}{capsys.readouterr().err}"
