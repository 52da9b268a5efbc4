"""The wheel, installed where there is no repository."""

import os
import shutil
import subprocess
import sys
import venv
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from training_runs import PATIENT_THREADS, TINY, as_argv

import musicvae
from modeling_musicvae import MusicVAEModel
from musicvae.paths import MUSICVAE_GROOVE_4BAR

ROOT = Path(__file__).parents[1]
TRAINING_PACKAGES = (
    "accelerate",
    "aiohttp",
    "datasets",
    "matplotlib",
    "pandas",
    "pyarrow",
    "tensorboard",
)
# Python imports it as it starts.
SITECUSTOMIZE = f"""
import sys
from importlib.machinery import PathFinder

class CorePackages(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        hidden = name.partition(".")[0] in {TRAINING_PACKAGES}
        return None if hidden else super().find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = CorePackages
"""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"  # for a build leaves files where it runs
    ignored = shutil.ignore_patterns(".*", "build", "outputs", "drums", "*venv*", "*.egg-info")
    shutil.copytree(ROOT, source, ignore=ignored)
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", folder, source]
    subprocess.run(build, check=True, timeout=300)
    (wheel,) = folder.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def environment(wheel, tmp_path_factory) -> Path:
    """A virtual environment with the wheel and the packages of this one."""
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder, symlinks=True)
    (site_packages,) = folder.glob("lib/python*/site-packages")
    outer = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    (site_packages / "outer.pth").write_text("\n".join(outer))
    pip = [sys.executable, "-m", "pip", "--python", folder / "bin/python"]
    install = [*pip, "install", "--no-deps", "--ignore-installed", wheel]
    subprocess.run(install, check=True, timeout=300)
    return folder


@pytest.fixture
def run(environment, tmp_path) -> Callable[..., str]:
    """Runs a program of the environment, far from the repository; returns what it prints."""

    def run(program: str, *words: str, **variables: str) -> str:
        return subprocess.run(
            [environment / "bin" / program, *words],
            cwd=tmp_path,
            env=os.environ | PATIENT_THREADS | variables,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            timeout=300,
        ).stdout

    return run


@pytest.fixture
def core_packages(tmp_path) -> dict[str, str]:
    """Environment variables with which Python finds no package of the extra `train`."""
    (tmp_path / "core").mkdir()
    (tmp_path / "core/sitecustomize.py").write_text(SITECUSTOMIZE)
    return {"PYTHONPATH": str(tmp_path / "core")}


def test_four_names_are_installed_at_the_top_level(wheel):
    names = {Path(name).parts[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {name for name in names if not name.endswith((".dist-info", ".data"))} == {
        "modeling_musicvae",
        "processing",
        "musicvae",
        "train_accelerate.py",
    }


def test_modules_of_the_user_do_not_hide_those_of_the_package(run, tmp_path):
    for name in ("training.py", "evaluation.py"):
        (tmp_path / name).write_text("raise ImportError('not this one')")
    assert run("python", "-c", "import musicvae; print(musicvae.__version__)") == (
        f"{musicvae.__version__}\n"
    )


def test_the_core_samples_and_humanizes(run, core_packages, environment, tmp_path):
    code = "import musicvae.drummer; print(musicvae.drummer.__file__)"
    file = run("python", "-c", code, **core_packages).strip()
    assert Path(file).is_relative_to(environment)
    sampled = run("musicvae", "sample", "--num_samples=1", **core_packages)
    humanized = run("musicvae", "humanize", "drums/groove-1.mid", **core_packages)
    assert sampled.startswith("drums/groove-1.mid")
    assert humanized.startswith("drums/groove-1-humanize.mid")
    names = {f"groove-1{verb}{suffix}" for verb in ("", "-humanize") for suffix in (".mid", ".wav")}
    assert {path.name for path in (tmp_path / "drums").iterdir()} == names | {
        "grooves.png",
        "groove-1-humanize.png",
    }


def test_the_core_says_what_training_needs(run, core_packages, capfd):
    with pytest.raises(subprocess.CalledProcessError) as failed:
        run("python", "-m", "train_accelerate", "--config", "quickstart", **core_packages)
    assert failed.value.returncode == 1
    error = capfd.readouterr().err
    assert error.startswith("train_accelerate.py: found no package ")
    assert error.endswith('expected those of the extra train: pip install -e ".[train]"\n')


def test_an_installed_package_trains(run, tmp_path):
    settings = TINY | {"data": "demo", "max_steps": 2, "output_dir": tmp_path / "model"}
    launcher = ["-m", "accelerate.commands.launch", "--quiet", "-m", "train_accelerate"]
    run("python", *launcher, *as_argv(settings))
    MusicVAEModel.from_pretrained(tmp_path / "model")
    assert "# MusicVAE, 4 bars of drums" in (tmp_path / "model/README.md").read_text()


def test_released_models_are_whole(environment):
    def files_in(folder: Path) -> dict[Path, int]:
        paths = (path for path in folder.rglob("*.*") if path.suffix != ".pyc")
        return {path.relative_to(folder): path.stat().st_size for path in paths}

    (installed,) = environment.glob("lib/python*/site-packages/musicvae/released")
    assert files_in(installed) == files_in(MUSICVAE_GROOVE_4BAR.parent)
