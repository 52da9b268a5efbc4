"""A release, from a recipe to the folder of the released model."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import training_runs
import yaml
from released_folders import check_card, check_weights
from training_runs import TINY, checkpoint_names, tiny_model

from musicvae import release as release_module
from musicvae.release import MAX_WEIGHTS_BYTES, ReleaseError, release, round_model, train
from musicvae.training import arguments
from processing import MusicVAEProcessor

pytestmark = pytest.mark.usefixtures("one_cpu_thread")

NAME = "musicvae-groove-4bar"
RECIPE = TINY | {"data": "groove", "max_steps": 2, "eval_steps": 2, "save_steps": 1}


@pytest.fixture(scope="module")
def workplace(tmp_path_factory) -> Iterator[Path]:
    """A folder to work in, with tiny recipes, where runs are trained in this process."""
    folder = tmp_path_factory.mktemp("workplace")
    for name in ("groove_4bar", "groove_4bar_fewer_bits"):
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(RECIPE))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(arguments, "RECIPES", folder)
        patch.setattr(release_module, "RELEASED", folder / "released")
        patch.setattr(release_module, "launch", train_here)
        yield folder


def train_here(words: list[str]) -> None:
    """The training that is launched, in this process, which has loaded all that it needs."""
    names = (word.removeprefix("--") for word in words[::2])
    training_runs.train(**dict(zip(names, words[1::2], strict=True)))


@pytest.fixture(scope="module")
def released(workplace, demo_grooves) -> Path:
    """The folder of a whole release."""
    release(NAME, "validation", str(demo_grooves))
    return workplace / "released" / NAME


@pytest.mark.slow
def test_a_release_is_whole(released):
    assert {path.name for path in released.iterdir()} == {
        *("README.md", "config.json", "model.safetensors", "processor_config.json"),
        *("encoder.onnx", "decoder.onnx", "musicvae.json"),
        *("samples", "samples.png", "evaluation"),
    }
    assert [path.name for path in released.parent.iterdir()] == [NAME]
    check_weights(released)


@pytest.mark.slow
def test_its_card_has_the_figures_of_its_evaluation_and_no_others(released):
    check_card(released)
    card = (released / "README.md").read_text(encoding="utf-8")
    assert re.findall("^## (.*)", card, re.MULTILINE)[-3:] == [
        "Evaluation",
        "Recreate",
        "Citation",
    ]
    assert f"musicvae evaluate musicvae/released/{NAME} --split validation" in card
    assert f"musicvae release {NAME}\n" in card
    assert "data_dir" not in card


@pytest.mark.slow
def test_the_recipe_of_fewer_bits_starts_from_the_model_of_the_other(released):
    card = (released / "README.md").read_text(encoding="utf-8")
    assert re.search("--config[= ]groove_4bar_fewer_bits ", card)
    assert re.search("--pretrained_model[= ]outputs/groove_4bar\\b", card)
    assert checkpoint_names(Path("outputs/groove_4bar")) == checkpoint_names(
        Path("outputs/groove_4bar_fewer_bits")
    )


@pytest.mark.slow
def test_a_finished_run_and_its_evaluation_are_taken_as_they_are(
    released, demo_grooves, monkeypatch
):
    before = released.stat().st_ino
    card = (released / "README.md").read_text(encoding="utf-8")
    monkeypatch.delattr(release_module, "launch")
    monkeypatch.delattr(release_module.Evaluation, "write")
    release(NAME, "validation", str(demo_grooves))
    assert released.stat().st_ino != before
    assert (released / "README.md").read_text(encoding="utf-8") == card
    assert [path.name for path in released.parent.iterdir()] == [NAME]


@pytest.mark.slow
def test_a_run_that_was_interrupted_is_resumed_from_its_checkpoint(
    workplace, demo_grooves, monkeypatch
):
    monkeypatch.setattr(release_module, "OUTPUTS", workplace / "interrupted")
    output_dir = workplace / "interrupted/groove_4bar"
    settings = {"config": "groove_4bar", "data_dir": demo_grooves, "output_dir": output_dir}
    training_runs.train(**settings, max_steps=1, decay_steps=2)
    (output_dir / "samples.png").unlink()
    (workplace / "groove_4bar.yaml").write_text(yaml.safe_dump(RECIPE | {"decay_steps": 2}))
    assert train("groove_4bar", str(demo_grooves)) == output_dir
    assert (output_dir / "samples.png").exists()
    assert "checkpoint-2" in checkpoint_names(output_dir)


@pytest.fixture
def trained(tmp_path) -> Path:
    """The folder of a model and its processor."""
    tiny_model().save_pretrained(tmp_path / "trained")
    MusicVAEProcessor().save_pretrained(tmp_path / "trained")
    return tmp_path / "trained"


def test_weights_are_rounded(trained, demo_grooves, tmp_path):
    round_model(trained, tmp_path / "rounded", str(demo_grooves))
    check_weights(tmp_path / "rounded")


def test_weights_that_are_too_large_are_refused(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(release_module, "MAX_WEIGHTS_BYTES", MAX_WEIGHTS_BYTES // 1600)
    with pytest.raises(ReleaseError, match=r"trained: found 0\.\d MB of weights in float16, expec"):
        round_model(trained, tmp_path / "rounded", None)
    assert not (tmp_path / "rounded").exists()


def test_an_unknown_release_is_refused_by_name():
    with pytest.raises(
        ReleaseError, match="^name: found musicvae, expected one of musicvae-groove"
    ):
        release("musicvae", "test", None)
