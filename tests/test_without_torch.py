"""An install without torch, transformers and huggingface_hub."""

import subprocess
import sys

import pytest
from factories import KICK, drum_file, note_on

MISSING = ("torch", "transformers", "huggingface_hub", "safetensors")


@pytest.fixture
def run(tmp_path):
    """Runs code in a process that cannot import the missing packages, in an empty folder."""

    def run(code: str) -> subprocess.CompletedProcess:
        hidden = f"import sys\nfor name in {MISSING}: sys.modules[name] = None\n"
        command = [sys.executable, "-c", hidden + code]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)

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


def test_a_model_that_is_no_folder_may_be_on_the_hub(run):
    done = run(command_line("sample", "--backend", "onnx", "--model", "someone/drums"))
    assert done.returncode == 1
    assert done.stderr.startswith(
        "musicvae sample: model: found no folder someone/drums; one on the Hub needs "
        'huggingface_hub: pip install -e ".[torch]"'
    )
