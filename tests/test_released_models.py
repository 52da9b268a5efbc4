"""The released models that come with the package."""

import subprocess
import sys

import pytest
from huggingface_hub import ModelCard
from released_folders import check_card, check_weights
from training_runs import STRANGER

from modeling_musicvae import MusicVAEModel
from musicvae.paths import RELEASED
from musicvae.tasks import RECIPES
from processing import MusicVAEProcessor

pytestmark = pytest.mark.usefixtures("one_cpu_thread")

FOLDERS = sorted(path.parent for path in RELEASED.glob("*/config.json"))
MAX_PICTURE_BYTES = 10**6

each_release = pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)

# Drums of a model and its processor, into the file of that name.
MAKE_DRUMS = """
import torch

generator = torch.Generator().manual_seed(0)
hits = torch.rand(1, 9, model.config.num_steps, generator=generator) < 0.1
given = hits.to(torch.uint8) * 90
drums = model.sample(1, 1.0, generator, *model.conditioning(given))
processor.decode(drums.piano_roll[0], drums.timing[0], bpm=100).write(name)
"""
WITHOUT_OURS, _ = STRANGER.split("import torch\n")
LOAD = """
from transformers import AutoModel, AutoProcessor

model = AutoModel.from_pretrained(sys.argv[1], trust_remote_code=True)
processor = AutoProcessor.from_pretrained(sys.argv[1], trust_remote_code=True)
name = "theirs.mid"
"""


def test_the_four_bar_model_is_released_and_nothing_that_has_no_recipe():
    names = {folder.name for folder in FOLDERS}
    assert "musicvae-groove-4bar" in names
    assert names <= RECIPES.keys()


@each_release
def test_the_weights_are_small(folder):
    check_weights(folder)


@each_release
def test_the_card_has_the_figures_of_the_evaluation(folder):
    check_card(folder)


@each_release
def test_the_card_shows_pictures_that_are_there(folder):
    text = ModelCard.load(folder / "README.md").text
    pictures = {path.relative_to(folder).as_posix() for path in folder.rglob("*.png")}
    assert [name for name in pictures if f"]({name})" not in text] == []
    assert text.count("![") == len(pictures)
    assert max((folder / name).stat().st_size for name in pictures) < MAX_PICTURE_BYTES


@each_release
def test_it_holds_no_code(folder):
    assert not list(folder.rglob("*.py"))


@each_release
def test_the_samples_differ(folder):
    files = [path.read_bytes() for path in (folder / "samples").glob("*.mid")]
    assert len(set(files)) == len(files) > 1


@each_release
def test_written_for_the_hub_it_makes_the_same_drums_without_anything_of_ours(folder, tmp_path):
    copy = tmp_path / "copy"
    MusicVAEModel.from_pretrained(folder).save_pretrained(copy)
    MusicVAEProcessor.from_pretrained(folder).save_pretrained(copy)
    code = WITHOUT_OURS + LOAD + MAKE_DRUMS
    command = [sys.executable, "-I", "-c", code, str(copy)]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    ours = {
        "model": MusicVAEModel.from_pretrained(folder),
        "processor": MusicVAEProcessor.from_pretrained(folder),
        "name": str(tmp_path / "ours.mid"),
    }
    exec(MAKE_DRUMS, ours)
    assert (tmp_path / "theirs.mid").read_bytes() == (tmp_path / "ours.mid").read_bytes()
