"""An install without torch, transformers and huggingface_hub."""

import os
import subprocess
import sys

import pytest
from factories import KICK, drum_file, note_on

MISSING = ("torch", "transformers", "huggingface_hub", "safetensors", "matplotlib", "onnx")


@pytest.fixture
def run(tmp_path):
    """Runs code in a process that cannot import the missing packages, in an empty folder."""

    def run(code: str) -> subprocess.CompletedProcess:
        hidden = f"import sys\nfor name in {MISSING}: sys.modules[name] = None\n"
        return subprocess.run(
            [sys.executable, "-c", hidden + code],
            cwd=tmp_path,
            env=os.environ | {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")},
            capture_output=True,
            text=True,
            timeout=120,
        )

    return run


def command_line(*words: str) -> str:
    return f"from musicvae.cli import main; sys.exit(main({list(words)}))"


def test_midi_is_read_and_written(run, tmp_path):
    (tmp_path / "take.mid").write_bytes(drum_file(note_on(0, KICK)))
    code = (
        "from processing import MidiProcessor\n"
        "processor = MidiProcessor()\n"
        "song = processor.read('take.mid')\n"
        "processor.write('copy.mid', song.piano_roll, song.timing, like=song)\n"
    )
    done = run(code)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "copy.mid").read_bytes()[:4] == b"MThd"


@pytest.mark.parametrize("verb", ["sample", "humanize"])
def test_a_verb_without_a_backend_names_both_installs(run, verb):
    done = run(command_line(verb, *["x.mid"] * (verb == "humanize")))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"musicvae {verb}: torch: found none, expected it for the backend torch: "
        'pip install -e ".[torch]", or pip install -e ".[onnx]" and choose the backend onnx '
        "(--backend onnx)\n"
    )


@pytest.mark.slow
def test_released_models_make_drums_and_leave_nothing_else(run, tmp_path):
    pytest.importorskip("onnxruntime", reason="needs onnxruntime, for exported models")
    for words in (
        "sample --num_samples 1 --style funk --attributes swing=1",
        "reconstruct drums/groove-1.mid",
        "humanize drums/groove-1.mid",
        "tap drums/groove-1.mid",
        "add drums/groove-1.mid",
        "humanize drums/groove-1.mid --dry_run",
    ):
        done = run(command_line(*words.split(), "--backend", "onnx"))
        assert (done.returncode, done.stderr) == (0, "")
    verbs = ("", "-reconstruct", "-humanize", "-tap", "-add")
    expected = {f"groove-1{verb}{suffix}" for verb in verbs for suffix in (".mid", ".wav", ".png")}
    expected = expected - {"groove-1.png"} | {"grooves.png"}
    assert [path.name for path in tmp_path.iterdir()] == ["drums"]
    assert {path.name for path in (tmp_path / "drums").iterdir()} == expected


def test_a_model_that_is_no_folder_may_be_on_the_hub(run):
    done = run(command_line("sample", "--backend", "onnx", "--model", "someone/drums"))
    assert done.returncode == 1
    assert done.stderr.startswith(
        "musicvae sample: model: found no folder someone/drums; one on the Hub needs "
        'huggingface_hub: pip install -e ".[torch]"'
    )
