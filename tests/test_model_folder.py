"""The folder that a training run leaves: the best model, its card and its drums."""

import re
import subprocess
import sys
from pathlib import Path

import pretty_midi
import pytest
import torch
from huggingface_hub import ModelCard
from matplotlib import image
from training_runs import (
    INTENDED,
    LEARNED_LAST,
    MOST,
    RECIPES,
    STRANGER,
    best_checkpoint,
    checkpoint_names,
    differing_weights,
    scalars,
)

from modeling_musicvae import MusicVAEModel
from modeling_musicvae.drum_attributes import ATTRIBUTES
from processing import MusicVAEProcessor

pytestmark = pytest.mark.usefixtures("one_cpu_thread")


def test_the_exported_model_is_the_best_one(train, tmp_path):
    # Beta is near zero while training, so at first the KL divergence grows, the loss with it.
    run = {"max_steps": 20, "eval_steps": 10, "learning_rate": 0.05}
    train(tmp_path, **run, free_bits=0, max_beta=1000, beta_rate=0.99999999)
    best, metrics = best_checkpoint(tmp_path)
    assert checkpoint_names(tmp_path) == {"checkpoint-10", "checkpoint-20"}
    assert best.name == "checkpoint-10"
    assert min(scalars(tmp_path)["validation/loss"].values()) == pytest.approx(metrics["loss"])
    assert differing_weights(tmp_path, best) == LEARNED_LAST
    card = (tmp_path / "README.md").read_text()
    assert [name for name, value in metrics.items() if f"{value:.4g}" not in card] == []


# What the snippet of a model's card does.
VERBS = {
    "groove_4bar_hits": "model.sample(1, temperature=0.8",
    "humanize": "model.humanize(song.piano_roll)",
    "tap_to_drums": "model.tap_to_drums(song.piano_roll, song.timing)",
    "add_hihat": "model.add_drums(song.piano_roll, song.timing)",
    "hits as controls": "model.sample(len(song.piano_roll), score=song.piano_roll)",
}


@pytest.fixture(scope="module", params=VERBS)
def trained(request, train, tmp_path_factory) -> tuple[str, Path]:
    """What a few steps of a recipe leave."""
    if request.param == "hits as controls":
        settings = {"config": RECIPES / "groove_4bar.yaml", "hits_as_controls": True}
    else:
        settings = {"config": RECIPES / f"{request.param}.yaml"}
    output_dir = tmp_path_factory.mktemp("trained") / "model"
    return request.param, train(output_dir, **settings, max_steps=4)


def test_a_recipe_leaves_a_model_that_loads(trained):
    name, output_dir = trained
    config = MusicVAEModel.from_pretrained(output_dir).config
    intended = MOST | INTENDED.get(name, {"hits_as_controls": True})
    names = intended.keys() - {"data"}
    assert {key: getattr(config, key) for key in names} == {key: intended[key] for key in names}


def test_it_leaves_drums_that_are_not_silent(trained):
    _, output_dir = trained
    samples = sorted((output_dir / "samples").iterdir())
    assert [path.name for path in samples] == ["sample-1.mid", "sample-2.mid"]
    assert all(pretty_midi.PrettyMIDI(str(path)).instruments[0].notes for path in samples)


def test_latents_can_be_given_more_of_an_attribute(trained):
    _, output_dir = trained
    model = MusicVAEModel.from_pretrained(output_dir)
    latents = torch.zeros(1, model.config.latent_size)
    assert [name for name in ATTRIBUTES if not model.add_attribute(latents, name).any()] == []


def test_the_snippet_of_the_card_makes_midi(trained, write_drums, tmp_path, monkeypatch):
    name, output_dir = trained
    card = (output_dir / "README.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    assert "{{" not in card and "{%" not in card
    assert VERBS[name] in code
    monkeypatch.chdir(tmp_path)
    for path in ("yours.mid", "hits.mid"):
        write_drums(tmp_path / path, bars=6)
    exec(code.replace("PATH", str(output_dir)), {})
    assert pretty_midi.PrettyMIDI("groove.mid").instruments[0].notes


def test_a_run_leaves_all_that_belongs_to_a_model_and_nothing_else(quickstart):
    output_dir, _ = quickstart
    names = {path.name for path in output_dir.iterdir() if path.suffix != ".py"}
    assert names == {
        "config.json",
        "model.safetensors",
        "processor_config.json",
        "README.md",
        "samples",
        "samples.png",
        "logs",
        "checkpoints",
        "demo_grooves",
    }
    assert checkpoint_names(output_dir) == {"checkpoint-30"}


def test_the_samples_are_drums_of_up_to_four_bars(quickstart):
    output_dir, _ = quickstart
    processor = MusicVAEProcessor.from_pretrained(output_dir)
    samples = sorted((output_dir / "samples").iterdir())
    assert [path.name for path in samples] == ["sample-1.mid", "sample-2.mid"]
    for path in samples:
        (instrument,) = pretty_midi.PrettyMIDI(str(path)).instruments
        assert instrument.is_drum
        assert processor.read(path).num_bars <= 4


def test_the_picture_shows_something(quickstart):
    output_dir, _ = quickstart
    pixels = image.imread(output_dir / "samples.png")
    assert min(pixels.shape[:2]) > 100
    assert pixels.std() > 0.01


def test_the_card_is_valid(quickstart):
    output_dir, _ = quickstart
    card = ModelCard.load(output_dir / "README.md")
    assert card.data.license == "apache-2.0"
    assert card.data.library_name == "transformers"
    assert "{{" not in card.text


def test_the_hub_reads_the_results_of_the_best_model_from_the_card(quickstart):
    output_dir, _ = quickstart
    results = ModelCard.load(output_dir / "README.md").data.eval_results
    _, metrics = best_checkpoint(output_dir)
    assert {result.metric_type: result.metric_value for result in results} == metrics
    assert {(result.dataset_type, result.dataset_split) for result in results} == {
        ("demo", "validation")
    }


def test_the_folder_works_where_nothing_of_ours_is_installed(quickstart, tmp_path):
    output_dir, _ = quickstart
    command = [sys.executable, "-I", "-c", STRANGER, str(output_dir)]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    drums = MusicVAEModel.from_pretrained(output_dir).sample(
        1, generator=torch.Generator().manual_seed(0)
    )
    groove = pretty_midi.PrettyMIDI(str(tmp_path / "groove.mid"))
    assert len(groove.instruments[0].notes) == (drums.piano_roll > 0).sum()
    assert groove.get_tempo_changes()[1] == pytest.approx([100])
    assert 4 * 4 * 60 / 100 * 0.75 < groove.get_end_time() <= 4 * 4 * 60 / 100
