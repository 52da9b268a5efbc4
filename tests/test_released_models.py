"""The released models, as they lie in checkpoints/."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard
from safetensors import safe_open
from test_model_folder import STRANGER

from modeling_musicvae import MusicVAEModel
from musicvae import release
from musicvae.evaluation.card import eval_results, evaluation_section
from musicvae.evaluation.report import facts_of, read_reports
from musicvae.release import COMPARISON, MAX_WEIGHTS_BYTES, RECIPES
from processing import MusicVAEProcessor

pytestmark = pytest.mark.usefixtures("one_cpu_thread")

CHECKPOINTS = Path(release.__file__).parent / "checkpoints"
RELEASED = sorted(path.parent for path in CHECKPOINTS.glob("*/config.json"))
MAX_PICTURE_BYTES = 10**6

each_release = pytest.mark.parametrize("folder", RELEASED, ids=lambda folder: folder.name)

# Drums of a model and its processor, into the file of that name.
MAKE_DRUMS = """
import torch

generator = torch.Generator().manual_seed(0)
hits = torch.rand(1, 9, model.config.num_steps, generator=generator) < 0.1
told = hits.to(torch.uint8) * 90
drums = model.sample(1, 1.0, generator, *model.conditioning(told))
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
    names = {folder.name for folder in RELEASED}
    assert "musicvae-groove-4bar" in names
    assert names <= RECIPES.keys()


def check_weights(folder: Path) -> None:
    """Float16 in a small file, the same numbers in float32 where they are loaded."""
    path = folder / "model.safetensors"
    assert path.stat().st_size <= MAX_WEIGHTS_BYTES * 1.001  # with the header
    with safe_open(path, "pt") as file:
        assert file.metadata() == {"format": "pt"}
        stored = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    assert {tensor.dtype for tensor in stored.values()} == {torch.float16}
    loaded = MusicVAEModel.from_pretrained(folder).state_dict()
    assert {tensor.dtype for tensor in loaded.values()} == {torch.float32}
    assert [name for name in loaded if not torch.equal(loaded[name], stored[name].float())] == []


def check_card(folder: Path) -> None:
    """Its figures are those of the evaluation, and this is of the weights beside it."""
    (report,) = read_reports(folder / "evaluation/evaluation.json")
    comparison = folder / "evaluation" / COMPARISON
    others = read_reports(comparison) if comparison.exists() else []
    card = ModelCard.load(folder / "README.md")
    assert evaluation_section(report, others) in card.text
    assert card.data.eval_results == eval_results(report)
    facts = json.loads(json.dumps(facts_of(MusicVAEModel.from_pretrained(folder))))
    assert facts.items() <= report.facts.items()


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
def test_the_code_is_what_the_sources_are(folder, tmp_path):
    MusicVAEModel.from_pretrained(folder).save_pretrained(tmp_path)
    MusicVAEProcessor.from_pretrained(folder).save_pretrained(tmp_path)
    released, ours = (
        {path.name: path.read_text(encoding="utf-8") for path in place.glob("*.py")}
        for place in (folder, tmp_path)
    )
    assert released == ours


@each_release
def test_the_samples_differ(folder):
    files = [path.read_bytes() for path in (folder / "samples").glob("*.mid")]
    assert len(set(files)) == len(files) > 1


@each_release
def test_copied_alone_it_makes_the_same_drums_without_anything_of_ours(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
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
