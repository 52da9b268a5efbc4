"""Every snippet of README.md does what it says."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pretty_midi
import pytest

from modeling_musicvae import MusicVAEConfig, MusicVAEModel
from processing import MusicVAEProcessor
from processing.demo_grooves import write_demo_grooves

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
TINY = "--latent_size 8 --encoder_hidden_size 8 --decoder_hidden_size 8 --max_steps 2"


def snippets(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


def snippet(language: str, containing: str) -> str:
    (found,) = [text for text in snippets(language) if containing in text]
    return found


def launch(command: str, cwd: Path, **environment: str) -> str:
    """Runs a training command of README.md on a tiny model; returns what it prints."""
    words = shlex.split(command)
    assert words[:2] == ["accelerate", "launch"]
    words[:2] = [sys.executable, "-m", "accelerate.commands.launch"]
    for name in ("train_accelerate.py", "model_card.md", "recipes"):
        (cwd / name).symlink_to(ROOT / name)
    run = subprocess.run(
        [*words, *shlex.split(TINY)],
        cwd=cwd,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stdout[-4000:]
    return run.stdout


def test_no_snippet_is_forgotten():
    assert (len(snippets("python")), len(snippets("bash"))) == (3, 3)
    assert README.count("```") == 2 * 6


def test_every_path_in_the_table_of_contents_exists():
    paths = re.findall(r"^\| `([^`]+)` \|", README, re.MULTILINE)
    recipes = [path for path in paths if path.endswith(".yaml")]
    assert {path.name for path in (ROOT / "recipes").glob("*.yaml")} == set(recipes)
    assert [path for path in paths if path not in recipes and not (ROOT / path).exists()] == []


def test_a_trained_model_makes_and_reconstructs_drums(tmp_path, monkeypatch):
    config = MusicVAEConfig(latent_size=8, encoder_hidden_size=8, decoder_hidden_size=8)
    MusicVAEModel(config).save_pretrained(tmp_path / "outputs/quickstart")
    MusicVAEProcessor().save_pretrained(tmp_path / "outputs/quickstart")
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(snippet("python", "model.sample"), names)
    exec(snippet("python", "model.reconstruct"), names)
    for name in ("groove.mid", "reconstruction.mid"):
        assert pretty_midi.PrettyMIDI(name).instruments[0].is_drum


def test_groove_is_a_dataset(shared_groove, tmp_path, monkeypatch):
    shutil.copy(shared_groove, tmp_path)
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(snippet("python", "GrooveMIDI"), names)
    assert names["train"][0]["piano_roll"].shape == (9, 64)


@pytest.mark.slow
def test_training_on_groove(shared_groove, tmp_path):
    command = snippet("bash", "launch train_accelerate.py --config recipes/groove_4bar.yaml\n")
    launch(f"{command.strip()} --data_dir {shared_groove}", tmp_path)
    MusicVAEModel.from_pretrained(tmp_path / "outputs/groove_4bar")


@pytest.mark.slow
def test_training_on_own_files(tmp_path):
    write_demo_grooves(tmp_path / "my_drums")
    launch(snippet("bash", "midi_folder"), tmp_path)
    MusicVAEModel.from_pretrained(tmp_path / "outputs/my_drums")


@pytest.mark.slow
def test_training_in_several_processes(tmp_path):
    command = snippet("bash", "--multi_gpu").strip()
    output = launch(f"{command} --data demo", tmp_path, ACCELERATE_USE_CPU="true")
    assert "4 process(es)" in output
    MusicVAEModel.from_pretrained(tmp_path / "outputs/groove_4bar")
