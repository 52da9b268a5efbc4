"""Every command and snippet of README.md and docs/ does what the text says."""

import io
import os
import re
import shlex
import shutil
import subprocess
import sys
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import pytest
import torch
import training_runs
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from loopback_hub import LoopbackHub

import musicvae
from modeling_musicvae import MusicVAEConfig, MusicVAEModel
from musicvae import cli
from musicvae.evaluation.bootstrap import Estimate
from musicvae.evaluation.report import number, read_report
from musicvae.paths import MUSICVAE_GROOVE_4BAR, RECIPES
from musicvae.training.arguments import parse_arguments
from processing import MusicVAEProcessor
from processing.demo_grooves import write_demo_grooves

ROOT = Path(__file__).parents[1]
DOCUMENTS = {
    name: (ROOT / name).read_text(encoding="utf-8")
    for name in (
        "README.md",
        "CONTRIBUTING.md",
        "SECURITY.md",
        "docs/training.md",
        "docs/experiments.md",
        "docs/faults.md",
    )
}
README, TRAINING = DOCUMENTS["README.md"], DOCUMENTS["docs/training.md"]

SIZES = {
    "latent_size": 8,
    "encoder_hidden_size": 8,
    "conductor_hidden_size": 8,
    "decoder_hidden_size": 8,
}


def snippets(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def commands(text: str) -> list[list[str]]:
    """The words of each command line, in blocks and in indented lines."""
    indented = re.findall(r"^    ((?:pip|musicvae|accelerate|pytest) .*)", text, re.MULTILINE)
    lines = [line for block in snippets(text, "bash") for line in block.splitlines()]
    lines = [part for line in lines + indented for part in line.split(" && ")]
    return [words for line in lines if (words := shlex.split(line, comments=True))]


ALL_COMMANDS = [words for text in DOCUMENTS.values() for words in commands(text)]
LAUNCHES = [words for words in ALL_COMMANDS if "accelerate" in words]
VERBS = [words[1:] for words in ALL_COMMANDS if words[0] == "musicvae"]


def of_training(*containing: str) -> list[str]:
    """The words of the first command of docs/training.md with all of these."""
    return next(words for words in commands(TRAINING) if set(containing) <= set(words))


def each_once(found: list[list[str]]) -> pytest.MarkDecorator:
    named = {" ".join(words): words for words in found}
    return pytest.mark.parametrize("words", named.values(), ids=named)


def test_every_command_is_of_a_program_that_is_tested_here():
    programs = {words[0] for words in ALL_COMMANDS if words not in LAUNCHES}
    assert programs == {"pip", "musicvae", "pytest"}


def test_every_link_leads_to_a_file():
    for name, text in DOCUMENTS.items():
        links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text)
        files = [link for link in links if not link.startswith("http")]
        assert [link for link in files if not (ROOT / name).parent.joinpath(link).exists()] == []


def test_changelog_and_citation_are_of_the_version():
    version = musicvae.__version__
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()
    assert re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)[1] == version


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_file_that_is_named_exists(name):
    folders = "musicvae|modeling_musicvae|processing|tests|docs|benchmarks"
    paths = set(re.findall(rf"`((?:{folders})/[\w/.-]*)`", DOCUMENTS[name])) - {"docs/"}
    assert [path for path in sorted(paths) if not (ROOT / path).exists()] == []


def test_every_function_that_is_named_with_its_file_is_there():
    named = re.findall(r"((?:`\w+`,? )+)in `([\w/]+\.py)`", DOCUMENTS["CONTRIBUTING.md"])
    assert len(named) > 20
    missing = [
        f"{name} in {path}"
        for names, path in named
        for name in re.findall(r"\w+", names)
        if not re.search(rf"^(def |class |){name}\b", (ROOT / path).read_text(), re.MULTILINE)
    ]
    assert missing == []


@pytest.mark.parametrize("name", ["SECURITY.md", "docs/faults.md"])
def test_every_test_that_is_named_exists(name):
    named = re.findall(r"`(test_\w+\.py)::(test_\w+)`", DOCUMENTS[name])
    assert len(named) > 20
    tests = {file: (ROOT / "tests" / file).read_text(encoding="utf-8") for file, _ in named}
    assert [test for file, test in named if f"\ndef {test}(" not in tests[file]] == []


def test_the_table_of_recipes_is_complete():
    recipes = re.findall(r"^\| `(\w+)` \|", TRAINING, re.MULTILINE)
    assert sorted(recipes) == sorted(path.stem for path in RECIPES.glob("*.yaml"))


def test_the_readme_has_a_line_for_each_verb():
    found = {words[1] for words in commands(README) if words[0] == "musicvae"}
    assert found == set(cli.COMMANDS)


@each_once(VERBS)
def test_a_command_line_is_valid(words):
    verb, *arguments = words
    cli.verb_parser(verb).parse_args(arguments)


TRAINED = {
    "quickstart": {},
    "add_hihat": {"input_transform": "remove_drums", "removed_drums": [2]},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Where a reader is who has a clone, ran the first command, and trained two small models."""
    folder = tmp_path_factory.mktemp("reader")
    (folder / "musicvae").symlink_to(ROOT / "musicvae")
    for name, settings in TRAINED.items():
        MusicVAEModel(MusicVAEConfig(**SIZES | settings)).save_pretrained(folder / "outputs" / name)
        MusicVAEProcessor().save_pretrained(folder / "outputs" / name)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        install = r'pip install -c constraints\.txt -e "\.\[torch\]"'
        (first,) = re.findall(f"{install} && musicvae (.*)", README)
        assert not cli.main(shlex.split(first))
    return folder


def test_the_first_command_makes_four_grooves_to_hear_and_to_see(folder):
    names = {f"groove-{index}{suffix}" for index in range(1, 5) for suffix in (".mid", ".wav")}
    assert {path.name for path in (folder / "drums").iterdir()} == names | {"grooves.png"}


@each_once([words for words in VERBS if words[0] in set(cli.GROUPS["make drums"]) - {"web"}])
def test_a_verb_makes_midi_sound_and_a_picture(words, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(folder)
    assert not cli.main([*words, "-o", str(tmp_path)])
    assert {path.suffix for path in tmp_path.iterdir()} >= {".mid", ".wav", ".png"}


@pytest.fixture(scope="module")
def in_python(folder) -> dict:
    """The names that a reader has who ran the snippets of README.md one after another."""
    names: dict = {}
    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for code in snippets(README, "python"):
            exec(code, names)
    return names


def test_humanizing_in_python_keeps_hits_and_tempo(in_python, folder):
    before, after = (
        in_python["processor"].read(folder / name)
        for name in ("drums/groove-1.mid", "humanized.mid")
    )
    assert np.array_equal(before.piano_roll > 0, after.piano_roll > 0)
    assert not np.array_equal(before.piano_roll, after.piano_roll)
    assert before.bpm.tolist() == after.bpm.tolist() == [100]


def test_drums_with_more_of_an_attribute_are_written(in_python, folder):
    written = in_python["processor"].read(folder / "swinging.mid")
    assert np.array_equal(written.piano_roll, in_python["drums"].piano_roll)


# The rows of the table of results, and where in the evaluation of the released model their figures
# are: those of the model, and of the baselines.
BASELINES = ["greedy", "most_frequent", "nearest"]
RECONSTRUCTION = {
    "pattern accuracy, teacher-forced": ("pattern_accuracy", ["teacher_forced"]),
    "pattern accuracy, sampled": ("pattern_accuracy", ["sampled"]),
    "pattern accuracy, greedy": ("pattern_accuracy", BASELINES),
    "hit F1, greedy": ("hit_f1", BASELINES),
    "velocity error, greedy, MIDI units": ("velocity_mae", BASELINES),
    "timing error, greedy, ms": ("timing_mae_ms", BASELINES),
}
OVERLAPS = {
    "hits per bar": "hits_per_bar",
    "syncopation": "syncopation",
    "similarity of a bar to the one before": "bar_similarity",
    "similarity of a bar to the second before": "two_bar_similarity",
    "spread of timing": "timing_spread",
}


def table_row(name: str, figures: list[Estimate | None]) -> str:
    words = ["–" if figure is None else number(figure.value) for figure in figures]
    return f"| {' | '.join([name, *words])} |"


def result_rows() -> list[str]:
    report = read_report(MUSICVAE_GROOVE_4BAR / "evaluation/evaluation.json")
    drums, samples = report.measures["reconstruction"]["drums"], report.measures["samples"]
    rows = []
    for name, (measure, ways) in RECONSTRUCTION.items():
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


@pytest.mark.slow
def test_groove_is_a_dataset(shared_groove, tmp_path, monkeypatch):
    shutil.copy(shared_groove, tmp_path)
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    (code,) = [code for code in snippets(TRAINING, "python") if "GrooveMIDI" in code]
    exec(code, names)
    assert names["train"][0]["piano_roll"].shape == (9, 64)


@each_once(LAUNCHES)
def test_a_training_command_is_valid(words, folder, monkeypatch):
    monkeypatch.chdir(folder)
    argv = words[words.index("train_accelerate.py") + 1 :]
    assert parse_arguments(argv).training.output_dir.startswith("outputs/")


# The configurations of accelerate, how many processes each has, and whether a CPU can run it.
MACHINES = {
    "one_cpu": (1, True),
    "two_cpus": (2, True),
    "one_gpu": (1, False),
    "eight_gpus": (8, False),
    "two_nodes": (16, False),
}


@pytest.mark.parametrize("name", MACHINES)
def test_accelerate_reads_the_configuration_of_a_machine(name, monkeypatch):
    monkeypatch.chdir(ROOT)
    num_processes, on_cpu = MACHINES[name]
    words = of_training(f"musicvae/recipes/accelerate/{name}.yaml")
    words = words[words.index("accelerate") + 2 :]
    launched, *_ = _validate_launch_command(launch_command_parser().parse_args(words))
    assert launched.training_script == "train_accelerate.py"
    assert (launched.num_processes, launched.multi_gpu) == (num_processes, num_processes > 1)
    assert launched.mixed_precision == ("no" if on_cpu else "bf16")


def test_every_configuration_of_accelerate_has_a_command():
    assert {path.stem for path in (RECIPES / "accelerate").iterdir()} == set(MACHINES)


def run(words: list[str], cwd: Path, **environment: str) -> str:
    """Runs a program; returns what it prints."""
    assignments = [word for word in words if re.match(r"[A-Z_]+=", word)]
    program, *arguments = words[len(assignments) :]
    if program == "accelerate":
        program, arguments = "accelerate.commands.launch", arguments[1:]
    environment |= dict(word.split("=", 1) for word in assignments)
    environment |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "PYTHONPATH": str(ROOT)}
    process = subprocess.run(
        [sys.executable, "-m", program, *arguments],
        cwd=cwd,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )
    assert process.returncode == 0, process.stdout[-4000:]
    return process.stdout


def launch(words: list[str], cwd: Path, max_steps: int = 2, **environment: str) -> str:
    """Runs a training command on a tiny model; returns what it prints."""
    for name in ("train_accelerate.py", "musicvae"):
        if not (cwd / name).exists():
            (cwd / name).symlink_to(ROOT / name)
    sizes = [] if "--pretrained_model" in words else [f"--{name}={SIZES[name]}" for name in SIZES]
    return run([*words, *sizes, f"--max_steps={max_steps}"], cwd, **environment)


def train(words: list[str], cwd: Path, max_steps: int = 2) -> str:
    """Runs a training command in this process, which is faster; returns what it prints."""
    argv = words[words.index("train_accelerate.py") + 1 :]
    arguments = {name[2:]: value for name, value in zip(argv[::2], argv[1::2], strict=True)}
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(printed):
        patch.chdir(cwd)
        arguments["output_dir"] = parse_arguments(argv).training.output_dir
        training_runs.train(**arguments | {"max_steps": max_steps})
    return printed.getvalue()


@pytest.mark.slow
def test_training_on_groove(shared_groove, tmp_path):
    words = of_training("accelerate", "groove_4bar")
    train([*words, "--data_dir", str(shared_groove)], tmp_path)
    MusicVAEModel.from_pretrained(tmp_path / "outputs/groove_4bar")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("output_dir", "run"), [("outputs/my_drums", train), ("outputs/finetuned", launch)]
)
def test_training_on_own_files(output_dir, run, tmp_path):
    write_demo_grooves(tmp_path / "my_drums")
    run(of_training(output_dir), tmp_path)
    MusicVAEModel.from_pretrained(tmp_path / output_dir)


@pytest.mark.slow
def test_training_in_two_processes(tmp_path):
    words = of_training("musicvae/recipes/accelerate/two_cpus.yaml")
    assert "2 processes" in launch([*words, "--data", "demo"], tmp_path)


@pytest.mark.slow
def test_training_on_a_stream_from_the_hub(tmp_path):
    """Here with the demo grooves instead of Groove."""
    write_demo_grooves(tmp_path / "grooves")
    push = of_training("musicvae", "push-data")
    with LoopbackHub() as hub:
        environment = hub.environment(hub.create_token("you"), tmp_path / "home")
        run([*push, "--data_dir", "grooves"], tmp_path, **environment)
        printed = launch(of_training("--streaming"), tmp_path, **environment)
    assert "you/groove_windows, a stream of windows" in printed


@pytest.mark.slow
def test_resuming_then_evaluating(tmp_path, monkeypatch):
    words = [*of_training("--resume_from_checkpoint"), "--data", "demo", "--decay_steps", "2"]
    started = [word for word in words if word not in ("--resume_from_checkpoint", "latest")]
    train(started, tmp_path, max_steps=1)
    assert "to step 2 from 1" in train(words, tmp_path)
    monkeypatch.chdir(tmp_path)
    few = ["--data_dir", "outputs/groove_4bar/demo_grooves", "--num_samples=10"]
    assert not cli.main([*of_training("musicvae", "evaluate")[1:], *few])
    found = {path.name for path in (tmp_path / "outputs/groove_4bar/evaluation").iterdir()}
    assert {"evaluation.json", "evaluation.md", "reconstructions.png"} <= found


@pytest.mark.slow
def test_publishing(tmp_path):
    (code,) = [code for code in snippets(TRAINING, "python") if "revision=" in code]
    with LoopbackHub() as hub:
        environment = hub.environment(hub.create_token("you"), tmp_path / "home")
        launch([*of_training("--hub_strategy"), "--data", "demo"], tmp_path, **environment)
        reader = [sys.executable, "-c", code.replace("step-11000", "step-2")]
        subprocess.run(reader, cwd=ROOT, env=os.environ | environment, check=True, timeout=300)
