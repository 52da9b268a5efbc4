"""What a user has who installs a wheel and has no repository."""

import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from training_runs import PATIENT_THREADS, TINY, as_argv

from modeling_musicvae import MusicVAEModel
from musicvae.paths import MUSICVAE_GROOVE_4BAR

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.slow


def files_in(folder: Path) -> dict[Path, int]:
    """Their sizes, but for bytecode."""
    paths = (path for path in folder.rglob("*.*") if path.suffix != ".pyc")
    return {path.relative_to(folder): path.stat().st_size for path in paths}


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """The folder that holds what the wheel holds."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"  # for a build leaves files where it runs
    ignored = shutil.ignore_patterns(".*", "build", "outputs", "drums", "*venv*")
    shutil.copytree(ROOT, source, ignore=ignored)
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", folder, source]
    subprocess.run(build, check=True, timeout=300)
    (wheel,) = folder.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(folder / "installed")
    return folder / "installed"


@pytest.fixture
def run(installed, tmp_path) -> Callable[..., str]:
    """Runs Python on what is installed, far from the repository; returns what it prints."""

    def run(*words: str) -> str:
        return subprocess.run(
            [sys.executable, *words],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(installed)} | PATIENT_THREADS,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            timeout=300,
        ).stdout

    return run


def test_what_is_imported_is_what_is_installed(run, installed):
    files = run(
        "-c", "import checkpoints, training; print(checkpoints.__file__, training.__file__)"
    )
    assert all(Path(file).is_relative_to(installed) for file in files.split())


def test_an_installed_package_trains(run, tmp_path):
    settings = TINY | {"data": "demo", "max_steps": 2, "output_dir": tmp_path / "model"}
    run("-m", "accelerate.commands.launch", "-m", "train_accelerate", *as_argv(settings))
    MusicVAEModel.from_pretrained(tmp_path / "model")
    assert "# MusicVAE, 4 bars of drums" in (tmp_path / "model/README.md").read_text()


def test_the_released_model_is_whole(installed):
    released = installed / MUSICVAE_GROOVE_4BAR.relative_to(ROOT)
    assert files_in(released) == files_in(MUSICVAE_GROOVE_4BAR)


def test_an_installed_package_plays_the_released_model(run, installed, tmp_path):
    (entry_points,) = installed.glob("*.dist-info/entry_points.txt")
    assert "musicvae-sample = sample_musicvae:main" in entry_points.read_text()
    written = run("-m", "sample_musicvae", "--num_samples=2").split()
    assert written == ["drums/groove-1.mid", "drums/groove-2.mid", "drums/grooves.png"]
    assert all((tmp_path / name).stat().st_size for name in written)
