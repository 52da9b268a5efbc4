"""What a user has who installs a wheel and has no repository."""

import os
import shutil
import subprocess
import sys
import zipfile
from functools import partial
from pathlib import Path

import pytest
from training_runs import PATIENT_THREADS, TINY, as_argv

from modeling_musicvae import MusicVAEModel

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_an_installed_package_trains(tmp_path):
    source = tmp_path / "source"  # for a build leaves files where it runs
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(".*", "build", "outputs", "*venv*"))
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", tmp_path, source]
    subprocess.run(build, check=True, timeout=300)
    (wheel,) = tmp_path.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(tmp_path / "installed")
    settings = TINY | {"data": "demo", "max_steps": 2, "output_dir": tmp_path / "model"}
    train = [sys.executable, "-m", "accelerate.commands.launch", "-m", "train_accelerate"]
    environment = {"PYTHONPATH": str(tmp_path / "installed")} | PATIENT_THREADS
    run = partial(
        subprocess.run, cwd=tmp_path, env=os.environ | environment, check=True, timeout=300
    )
    where = [sys.executable, "-c", "import training; print(training.__file__)"]
    imported = run(where, stdout=subprocess.PIPE, text=True).stdout.strip()
    assert Path(imported).is_relative_to(tmp_path / "installed")
    run([*train, *as_argv(settings)])
    MusicVAEModel.from_pretrained(tmp_path / "model")
    assert "# MusicVAE, 4 bars of drums" in (tmp_path / "model/README.md").read_text()
