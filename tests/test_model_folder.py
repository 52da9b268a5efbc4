"""The folder that a training run leaves: the best model, its card and its drums."""

import errno
import os
import re
import shutil
import subprocess
import sys
from itertools import count
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
from musicvae.training import model_folder, trainer
from musicvae.training.checkpoints import save_checkpoint
from musicvae.training.model_folder import ModelFolderError
from processing import MusicVAEProcessor

pytestmark = pytest.mark.usefixtures("one_cpu_thread")


@pytest.fixture
def getting_worse(monkeypatch) -> None:
    """The loss of each evaluation is greater than that of the one before."""
    losses, evaluate = count(1000.0), trainer.evaluate
    monkeypatch.setattr(trainer, "evaluate", lambda *args: evaluate(*args) | {"loss": next(losses)})


RUN = {"max_steps": 4, "eval_steps": 2}


def test_the_exported_model_is_the_best_one(getting_worse, train, tmp_path):
    train(tmp_path, **RUN)
    best, metrics = best_checkpoint(tmp_path)
    assert checkpoint_names(tmp_path) == {"checkpoint-2", "checkpoint-4"}
    assert best.name == "checkpoint-2"
    assert min(scalars(tmp_path)["validation/loss"].values()) == pytest.approx(metrics["loss"])
    assert differing_weights(tmp_path, best) == LEARNED_LAST
    card = (tmp_path / "README.md").read_text()
    assert [name for name, value in metrics.items() if f"{value:.4g}" not in card] == []


def test_where_the_best_checkpoint_is_gone_the_last_model_is_exported(
    getting_worse, train, tmp_path, capsys, monkeypatch
):
    """As it is where the output folder is deleted while the run trains."""

    def save_in_a_deleted_folder(accelerator, training, progress, *run) -> None:
        if progress.step == 4:
            shutil.rmtree(tmp_path)
        save_checkpoint(accelerator, training, progress, *run)

    monkeypatch.setattr(trainer, "save_checkpoint", save_in_a_deleted_folder)
    train(tmp_path, **RUN)
    assert checkpoint_names(tmp_path) == {"checkpoint-4"}
    last = tmp_path / "checkpoints/checkpoint-4"
    assert differing_weights(tmp_path, last) == LEARNED_LAST
    printed = capsys.readouterr().out
    assert "Gone       the best checkpoint, of step 2: the last one is exported" in printed
    assert f"Model      {tmp_path} (last of step 4)" in printed


def test_a_model_that_finds_no_room_is_written_when_the_run_is_resumed(
    train, tmp_path, monkeypatch
):
    with monkeypatch.context() as patch:
        patch.setattr(model_folder, "write_samples", no_room)
        message = f"^{tmp_path}: the model could not be written: OSError: .*No space left.*latest w"
        with pytest.raises(ModelFolderError, match=message):
            train(tmp_path, **RUN)
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoints", "logs"}
    train(tmp_path, **RUN, resume_from_checkpoint="latest")
    assert (tmp_path / "samples.png").is_file()


def no_room(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


# What the snippet of a model's card does.
VERBS = {
    "groove_4bar_hits": "model.sample(1, temperature=0.9",
    "humanize": "model.humanize(song.piano_roll)",
    "tap_to_drums": "model.tap_to_drums(song.piano_roll, song.timing, temperature=0)",
    "add_hihat": "model.add_drums(song.piano_roll, song.timing)",
    "hits as controls": "model.sample(len(song.piano_roll), score=song.piano_roll)",
}


@pytest.fixture(scope="module", params=VERBS)
def trained(request, train, tmp_path_factory) -> tuple[str, Path]:
    """The output folder of a few steps of a recipe."""
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
