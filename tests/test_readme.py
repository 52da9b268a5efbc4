"""Every snippet of README.md does what it says."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pretty_midi
import pytest
import torch
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from loopback_hub import LoopbackHub
from test_conversion import write_checkpoint
from test_magenta_variables import random_variables

from modeling_musicvae import MusicVAEConfig, MusicVAEModel
from musicvae import sample as sample_musicvae
from musicvae.evaluation.bootstrap import Figure
from musicvae.evaluation.report import number, read_reports
from musicvae.paths import MUSICVAE_GROOVE_4BAR
from processing import MusicVAEProcessor
from processing.demo_grooves import write_demo_grooves

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
TINY = "--latent_size 8 --encoder_hidden_size 8 --decoder_hidden_size 8 --max_steps"


def snippets(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


def snippet(language: str, containing: str) -> str:
    (found,) = [text for text in snippets(language) if containing in text]
    return found


def launch(command: str, cwd: Path, max_steps: int = 2, **environment: str) -> str:
    """Runs a training command of README.md on a tiny model; returns what it prints."""
    words = shlex.split(command)
    assert words[:2] == ["accelerate", "launch"]
    words[:2] = [sys.executable, "-m", "accelerate.commands.launch"]
    for name in ("train_accelerate.py", "model_card.md", "recipes"):
        if not (cwd / name).exists():
            (cwd / name).symlink_to(ROOT / name)
    run = subprocess.run(
        [*words, *shlex.split(TINY), str(max_steps)],
        cwd=cwd,
        env=os.environ | {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stdout[-4000:]
    return run.stdout


def test_no_snippet_is_forgotten():
    assert len(snippets("python")) == len(DRUMS_MADE) + 3  # and loading, the dataset, a revision
    # Convert, train; push windows, stream them; evaluate, go on, publish.
    assert len(snippets("bash")) == 3 + len(MACHINES) + 5
    assert README.count("```") == 2 * len(snippets("python") + snippets("bash"))


def test_every_path_in_the_table_of_contents_exists():
    paths = re.findall(r"^\| `([^`]+)` \|", README, re.MULTILINE)
    recipes = [path for path in paths if path.endswith(".yaml")]
    assert {path.name for path in (ROOT / "recipes").glob("*.yaml")} == set(recipes)
    assert [path for path in paths if path not in recipes and not (ROOT / path).exists()] == []


SAMPLING_COMMANDS = {
    "the first command": (r"pip install -c constraints\.txt -e \. && musicvae-sample(.*)", 4, 4),
    "with options": (r"`musicvae-sample (--.*)`", 8, 16),
}


@pytest.mark.parametrize(
    ("pattern", "grooves", "bars"), SAMPLING_COMMANDS.values(), ids=SAMPLING_COMMANDS
)
def test_the_released_model_plays(pattern, grooves, bars, tmp_path, monkeypatch):
    (words,) = re.findall(pattern, README)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["musicvae-sample", *shlex.split(words)])
    sample_musicvae.main()
    names = {f"groove-{number}.mid" for number in range(1, grooves + 1)}
    assert {path.name for path in (tmp_path / "drums").iterdir()} == names | {"grooves.png"}
    reader = MusicVAEProcessor(pitch_map="roland_td11", adjust_mode="none")
    rolls = [reader.read(tmp_path / "drums" / name).piano_roll for name in names]
    assert max(roll.shape[1] for roll in rolls) == 16 * bars


def test_the_released_model_reads_a_file_as_the_snippets_play_it():
    """Windows follow each other without overlap."""
    processor = MusicVAEProcessor.from_pretrained(MUSICVAE_GROOVE_4BAR)
    assert (processor.bars, processor.hop_bars) == (4, 4)


# The rows of the table of results, and where in the evaluation of the released model their figures
# are: those of the model, and of the two that it is beside.
DRUMS = {
    "pattern accuracy, teacher-forced": ("pattern_accuracy", ["teacher_forced"]),
    "pattern accuracy, sampled": ("pattern_accuracy", ["sampled"]),
    "pattern accuracy, greedy": ("pattern_accuracy", ["greedy", "most_frequent", "nearest"]),
    "hit F1, greedy": ("hit_f1", ["greedy", "most_frequent", "nearest"]),
    "velocity error, greedy, MIDI units": ("velocity_mae", ["greedy", "most_frequent", "nearest"]),
    "timing error, greedy, ms": ("timing_mae_ms", ["greedy", "most_frequent", "nearest"]),
}
OVERLAPS = {
    "hits a bar": "hits_per_bar",
    "syncopation": "syncopation",
    "repeated bars": "repeated_bars",
    "spread of timing": "timing_spread",
}


def table_row(name: str, figures: list[Figure | None]) -> str:
    words = ["–" if figure is None else number(figure.value) for figure in figures]
    return f"| {' | '.join([name, *words])} |"


def result_rows() -> list[str]:
    (report,) = read_reports(MUSICVAE_GROOVE_4BAR / "evaluation/evaluation.json")
    drums, samples = report.measures["reconstruction"]["drums"], report.measures["samples"]
    rows = []
    for name, (measure, ways) in DRUMS.items():
        figures = [drums[way][measure] for way in ways]
        rows.append(table_row(name, figures + [None] * (3 - len(figures))))
    for name, feature in OVERLAPS.items():
        areas = samples["distributions"][feature]["overlapping_area"]
        rows.append(table_row(name, [areas["samples"], areas["other_split"]]))
    distances = samples["nearest_training_window"]
    figures = [distances[drums]["mean"] for drums in ("samples", "played")]
    return [*rows, table_row("hits that differ from the nearest training window", figures)]


@pytest.mark.parametrize("row", result_rows())
def test_the_results_are_those_of_the_evaluation(row):
    assert row in README


# The models that the snippets load.
SIZES = {
    "latent_size": 8,
    "encoder_hidden_size": 8,
    "conductor_hidden_size": 8,
    "decoder_hidden_size": 8,
}
MODELS = {
    "checkpoints/musicvae-groove-4bar": {},
    "checkpoints/musicvae-groove-4bar-humanize": {
        "input_transform": "humanize",
        "hits_as_controls": True,
    },
    "checkpoints/musicvae-groove-4bar-tap": {"input_transform": "tap", "input_as_controls": True},
    "outputs/add_hihat": {"input_transform": "remove_drums", "removed_drums": [2]},
}
# The files that they leave, in the order of the text, and how many bars each has.
DRUMS_MADE = {
    "groove.mid": 8,
    "reconstruction.mid": 8,
    "interpolation.mid": 16,
    "transferred.mid": 12,
    "swinging.mid": 8,
    "humanized.mid": 8,
    "drums.mid": 8,
    "with_hihat.mid": 8,
}


@pytest.fixture(scope="module")
def used_as_described(write_drums, tmp_path_factory) -> Path:
    """Where a reader ran all snippets in which a trained model is used, from the first to the last.

    The models are untrained ones, and the reader has a score of his own.
    """
    folder = tmp_path_factory.mktemp("reader")
    torch.manual_seed(0)
    drums = MusicVAEModel(MusicVAEConfig(**SIZES)).sample(50)
    for name, settings in MODELS.items():
        model = MusicVAEModel(MusicVAEConfig(**SIZES | settings))
        model.fit_attribute_vectors([(drums.piano_roll, drums.timing)])
        model.save_pretrained(folder / name)
        MusicVAEProcessor(hop_bars=4).save_pretrained(folder / name)
    write_drums(folder / "score.mid", bars=12)
    names: dict = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for code in snippets("python"):
            if "GrooveMIDI" not in code and "revision" not in code:
                exec(code, names)
    return folder


def test_the_snippets_make_midi_files_and_no_others(used_as_described):
    assert {path.name for path in used_as_described.glob("*.mid")} == {"score.mid", *DRUMS_MADE}


@pytest.mark.parametrize("name", DRUMS_MADE)
def test_a_snippet_makes_drums_of_the_length_that_it_should(name, used_as_described):
    (instrument,) = pretty_midi.PrettyMIDI(str(used_as_described / name)).instruments
    assert instrument.is_drum
    read = MusicVAEProcessor().read(used_as_described / name)
    assert read.piano_roll.shape == (9, 16 * DRUMS_MADE[name])


def hits(path: Path) -> np.ndarray:
    return MusicVAEProcessor().read(path).piano_roll > 0


@pytest.mark.parametrize(
    ("given", "made"), [("score.mid", "transferred.mid"), ("groove.mid", "humanized.mid")]
)
def test_what_is_said_to_keep_the_hits_does(given, made, used_as_described):
    assert np.array_equal(hits(used_as_described / given), hits(used_as_described / made))


def test_adding_a_hihat_leaves_every_other_drum_as_it_was_played(used_as_described):
    processor = MusicVAEProcessor()
    before, after = (
        processor.read(used_as_described / name) for name in ("groove.mid", "with_hihat.mid")
    )
    others = [drum for drum in range(9) if drum != 2]
    assert np.array_equal(before.piano_roll[others], after.piano_roll[others])
    assert np.array_equal(before.timing[others], after.timing[others])
    assert not np.array_equal(before.piano_roll[2], after.piano_roll[2])


def test_a_tempo_is_kept_from_file_to_file(used_as_described):
    tempo = {
        name: pretty_midi.PrettyMIDI(str(used_as_described / name)).get_tempo_changes()[1].tolist()
        for name in DRUMS_MADE
    }
    assert tempo == {
        name: pytest.approx([120 if name == "transferred.mid" else 100]) for name in DRUMS_MADE
    }


def test_a_checkpoint_of_magenta_becomes_a_model_folder(tmp_path):
    """Here with a small one instead of the one that the command downloads."""
    _, variables = random_variables(output="groove", decoder="flat")
    write_checkpoint(tmp_path / "groovae_4bar", variables, "GrooveConverter")
    python, script, address, *words = shlex.split(snippet("bash", "convert_magenta.py"))
    assert (python, Path(address).name) == ("python", "groovae_4bar")
    command = [sys.executable, ROOT / script, "groovae_4bar", *words]
    subprocess.run(command, cwd=tmp_path, check=True, timeout=300)
    config = MusicVAEModel.from_pretrained(tmp_path / "outputs/groovae_4bar").config
    assert (config.output, config.bars) == ("groove", 4)


def test_groove_is_a_dataset(shared_groove, tmp_path, monkeypatch):
    shutil.copy(shared_groove, tmp_path)
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(snippet("python", "GrooveMIDI"), names)
    assert names["train"][0]["piano_roll"].shape == (9, 64)


@pytest.mark.slow
def test_training_on_groove(shared_groove, tmp_path):
    command = snippet("bash", "launch train_accelerate.py --config recipes/groove_4bar.yaml\n")
    launch(f"{command.strip()} --data_dir {shared_groove}", tmp_path)
    MusicVAEModel.from_pretrained(tmp_path / "outputs/groove_4bar")


@pytest.mark.slow
def test_training_on_own_files(tmp_path):
    write_demo_grooves(tmp_path / "my_drums")
    launch(snippet("bash", "midi_folder"), tmp_path)
    MusicVAEModel.from_pretrained(tmp_path / "outputs/my_drums")


# The configurations of accelerate, how many processes each has, and whether a CPU can run it.
MACHINES = {
    "one_cpu": (1, True),
    "two_cpus": (2, True),
    "one_gpu": (1, False),
    "eight_gpus": (8, False),
    "two_nodes": (16, False),
}


def machine_command(name: str) -> tuple[dict[str, str], list[str]]:
    """The environment and the words of the command that README.md has for a kind of machine."""
    words = shlex.split(snippet("bash", f"recipes/accelerate/{name}.yaml"))
    start = words.index("accelerate")
    return dict(word.split("=", 1) for word in words[:start]), words[start:]


@pytest.mark.parametrize("name", MACHINES)
def test_accelerate_reads_the_configuration_of_a_machine(name):
    num_processes, on_cpu = MACHINES[name]
    _, words = machine_command(name)
    arguments = launch_command_parser().parse_args(words[2:])
    launched, configuration, _ = _validate_launch_command(arguments)
    assert (launched.num_processes, launched.training_script) == (
        num_processes,
        "train_accelerate.py",
    )
    assert launched.multi_gpu == (num_processes > 1)
    assert launched.mixed_precision == ("no" if on_cpu else "bf16")
    assert {path.stem for path in (ROOT / "recipes/accelerate").iterdir()} == set(MACHINES)


@pytest.mark.slow
def test_training_in_two_processes(tmp_path):
    environment, words = machine_command("two_cpus")
    output = launch(shlex.join([*words, "--data", "demo"]), tmp_path, **environment)
    assert "2 process(es)" in output
    MusicVAEModel.from_pretrained(tmp_path / "outputs/groove_4bar")


@pytest.mark.slow
def test_training_on_windows_from_the_hub(tmp_path):
    """Here with the demo grooves instead of Groove."""
    write_demo_grooves(tmp_path / "grooves")
    python, *words = shlex.split(snippet("bash", "processing.groove_midi"))
    with LoopbackHub() as hub:
        environment = hub.environment(hub.create_token("you"), tmp_path / "home")
        push = [sys.executable, *words, "--data_dir", tmp_path / "grooves"]
        subprocess.run(push, cwd=ROOT, env=os.environ | environment, check=True, timeout=300)
        printed = launch(snippet("bash", "--streaming"), tmp_path, **environment)
    assert "you/groove_windows, a stream of windows" in printed
    MusicVAEModel.from_pretrained(tmp_path / "outputs/groove_4bar")


@pytest.mark.slow
def test_evaluating(tmp_path):
    """Here a tiny model, on the demo grooves."""
    write_demo_grooves(tmp_path / "grooves")
    MusicVAEModel(MusicVAEConfig(**SIZES)).save_pretrained(tmp_path / "outputs/groove_4bar")
    python, script, *words = shlex.split(snippet("bash", "evaluate_musicvae.py"))
    command = [sys.executable, ROOT / script, *words, "--data_dir", "grooves", "--num_samples=10"]
    subprocess.run(command, cwd=tmp_path, check=True, timeout=300)
    found = {path.name for path in (tmp_path / "outputs/groove_4bar/evaluation").iterdir()}
    assert {"evaluation.json", "evaluation.md", "reconstructions.png"} <= found


@pytest.mark.slow
def test_going_on(tmp_path):
    command = snippet("bash", "--resume_from_checkpoint").strip()
    started = command.replace(" --resume_from_checkpoint latest", "")
    launch(f"{started} --data demo", tmp_path, max_steps=1)
    assert "to step 2 from 1" in launch(f"{command} --data demo", tmp_path)


@pytest.mark.slow
def test_publishing(tmp_path):
    command, code = snippet("bash", "--hub_strategy").strip(), snippet("python", "revision=")
    with LoopbackHub() as hub:
        environment = hub.environment(hub.create_token("you"), tmp_path / "home")
        launch(f"{command} --data demo", tmp_path, **environment)
        code = code.replace("step-4800", "step-2")
        code = f"from modeling_musicvae import MusicVAEModel\n{code}"
        reader = [sys.executable, "-c", code]
        subprocess.run(reader, cwd=ROOT, env=os.environ | environment, check=True, timeout=300)
