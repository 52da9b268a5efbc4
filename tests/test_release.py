"""A release, from a recipe to the folder in checkpoints/."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import training_runs
import yaml
from test_released_models import check_card, check_weights
from training_runs import TINY, checkpoint_names, tiny_model

from musicvae import release as release_musicvae
from musicvae.evaluation.report import read_reports
from musicvae.release import ReleaseError, release, round_model, run_training
from processing import MusicVAEProcessor

pytestmark = pytest.mark.usefixtures("one_cpu_thread")

NAME = "musicvae-groove-4bar"
BETAS = (release.RELEASED_MAX_BETA,)
RUN = {"data": "groove", "max_steps": 2, "eval_steps": 2, "save_steps": 1, "batch_size": 16}
RECIPES = {
    "groove_4bar": TINY | RUN,
    "groove_4bar_flat": TINY | RUN | {"decoder": "flat"},
    "rate_distortion": RUN | {"free_bits": 0, "num_samples": 2},
}


@pytest.fixture(scope="module")
def workplace(tmp_path_factory) -> Iterator[Path]:
    """A folder to work in that has tiny recipes."""
    folder = tmp_path_factory.mktemp("workplace")
    (folder / "recipes").mkdir()
    for name, recipe in RECIPES.items():
        (folder / "recipes" / f"{name}.yaml").write_text(yaml.safe_dump(recipe))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield folder


def train_here(words: list[str]) -> None:
    """What is launched, in this process, which has loaded all that it needs."""
    names = (word.removeprefix("--") for word in words[::2])
    training_runs.train(**dict(zip(names, words[1::2], strict=True)))


@pytest.fixture(scope="module")
def released(workplace, demo_grooves) -> Path:
    """The folder of a whole release, whose curve has one point for each decoder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(release_musicvae, "launch", train_here)
        patch.setattr(release_musicvae, "MAX_BETAS", BETAS)
        release(NAME, "validation", str(demo_grooves))
    return workplace / "checkpoints" / NAME


@pytest.mark.slow
def test_a_release_is_whole(released):
    names = {path.name for path in released.iterdir() if path.suffix != ".py"}
    assert names == {
        *("README.md", "config.json", "model.safetensors", "processor_config.json"),
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
    assert f"python evaluate_musicvae.py checkpoints/{NAME} --split validation" in card
    assert f"python release_musicvae.py {NAME}\n" in card
    assert "data_dir" not in card


@pytest.mark.slow
def test_it_is_compared_with_a_flat_decoder_and_along_the_curve(released):
    others = read_reports(released / "evaluation/comparison.json")
    assert [Path(report.facts["model"]).name for report in others] == [
        "groove_4bar",
        "groove_4bar_flat",
        "flat-0.3",
    ]
    assert [report.facts["max_beta"] for report in others] == [0.2, 0.2, 0.3]
    assert [report.facts["free_bits"] for report in others] == [48, 48, 0]


@pytest.mark.slow
def test_what_is_done_is_not_done_again(released, demo_grooves, monkeypatch):
    before = released.stat().st_ino
    card = (released / "README.md").read_text(encoding="utf-8")
    monkeypatch.setattr(release_musicvae, "MAX_BETAS", BETAS)
    for module, work in (
        (release_musicvae, "launch"),
        (release_musicvae.evaluate_musicvae, "evaluate"),
    ):
        monkeypatch.delattr(module, work)
    release(NAME, "validation", str(demo_grooves))
    assert released.stat().st_ino != before
    assert (released / "README.md").read_text(encoding="utf-8") == card
    assert [path.name for path in released.parent.iterdir()] == [NAME]


@pytest.mark.slow
def test_a_run_that_was_interrupted_is_gone_on_from_its_checkpoint(workplace, demo_grooves):
    words = ["--config", "recipes/groove_4bar.yaml", "--data_dir", str(demo_grooves)]
    output_dir = Path("outputs/interrupted")
    train_here([*words, "--output_dir", str(output_dir), "--max_steps", "1"])
    (output_dir / "samples.png").unlink()
    run_training(output_dir, words)
    assert (output_dir / "samples.png").exists()
    assert "checkpoint-2" in checkpoint_names(output_dir)


@pytest.fixture
def trained(tmp_path) -> Path:
    """The folder of a model and its processor."""
    tiny_model().save_pretrained(tmp_path / "trained")
    MusicVAEProcessor().save_pretrained(tmp_path / "trained")
    return tmp_path / "trained"


def test_weights_are_rounded(trained, tmp_path):
    round_model(trained, tmp_path / "rounded")
    check_weights(tmp_path / "rounded")


def test_weights_that_are_too_large_are_refused(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(release_musicvae, "MAX_WEIGHTS_BYTES", 10_000)
    with pytest.raises(ReleaseError, match=r"trained: found 0\.\d MB of weights in float16, expec"):
        round_model(trained, tmp_path / "rounded")
    assert not (tmp_path / "rounded").exists()


def test_a_release_that_is_none_is_refused(capsys):
    with pytest.raises(SystemExit):
        release.parse_arguments(["musicvae"])
    assert "choose from" in capsys.readouterr().err
