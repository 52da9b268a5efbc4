"""The notebook for a first hour: its cells run from top to bottom, and it holds no outputs."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from processing import MusicVAEProcessor

ROOT = Path(__file__).parents[1]
NOTEBOOK = json.loads((ROOT / "examples/quickstart.ipynb").read_text(encoding="utf-8"))
CELLS = NOTEBOOK["cells"]
CODE = ["".join(cell["source"]) for cell in CELLS if cell["cell_type"] == "code"]

# Where IPython is not installed, what is displayed need only be made.
PRELUDE = """
import subprocess, sys
from types import SimpleNamespace
try:
    import IPython
except ImportError:
    display = SimpleNamespace(Audio=lambda *_, **__: None, Image=lambda path: open(path).close())
    sys.modules["IPython.display"] = display
"""


def as_python(source: str) -> str:
    """A cell without its installation, and with its commands as Python."""
    source = re.sub(r"^%pip .*$", "", source, flags=re.MULTILINE)
    return re.sub(
        r"^!((?:.*\\\n)*.*)$",
        lambda line: f"subprocess.run({line[1]!r}, shell=True, check=True)",
        source,
        flags=re.MULTILINE,
    )


def test_the_notebook_has_eight_cells_and_no_outputs():
    assert len(CELLS) == 8
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in CELLS)


@pytest.mark.slow
def test_the_cells_run_from_top_to_bottom(tmp_path):
    folder = tmp_path / "examples"
    folder.mkdir()
    for name in ("musicvae", "train_accelerate.py"):
        (tmp_path / name).symlink_to(ROOT / name)
    script = "\n".join([PRELUDE, *map(as_python, CODE)])
    assert "--max_steps 10 --batch_size 16" in script
    script = script.replace("--max_steps 10 --batch_size 16", "--max_steps 1 --batch_size 4")
    run = subprocess.run(
        [sys.executable, "-c", script], cwd=folder, capture_output=True, text=True, timeout=600
    )
    assert run.returncode == 0, run.stderr
    made = {path.name for path in (folder / "drums").iterdir()}
    assert made == {"groove.mid", "groove.png", "humanized.mid", "humanized.wav", "finetuned.mid"}
    read = MusicVAEProcessor().read
    hits, humanized = (read(folder / f"drums/{name}.mid") for name in ("groove", "humanized"))
    assert ((hits.piano_roll > 0) == (humanized.piano_roll > 0)).all()
    assert (hits.piano_roll != humanized.piano_roll).any()
