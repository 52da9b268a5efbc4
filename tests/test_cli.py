"""The `musicvae` command: help, versions, mistakes, errors and interruptions."""

import re
import subprocess
import sys

import pytest

import musicvae
import train_accelerate
from musicvae.cli import COMMANDS, main
from musicvae.commands import Command

HEAVY = ("torch", "transformers", "numpy", "datasets", "matplotlib", "PIL", "huggingface_hub")


def run(words: str, capsys) -> tuple[int, str, str]:
    """The exit code of a command line, and what it prints on stdout and stderr."""
    try:
        code = main(words.split())
    except SystemExit as exit:
        code = exit.code
    printed, errors = capsys.readouterr()
    if isinstance(code, str):  # Python prints it as it exits
        code, errors = 1, f"{errors}{code}\n"
    return code or 0, printed, errors


@pytest.mark.parametrize("words", ["", "--help", "-h"])
def test_help_lists_every_verb(words, capsys):
    code, printed, _ = run(words, capsys)
    assert code == 0
    assert re.findall(r"^  ([a-z-]+) {2,}\S", printed, re.MULTILINE)[: len(COMMANDS)] == [*COMMANDS]


@pytest.mark.parametrize("verb", COMMANDS)
def test_help_of_a_verb_has_an_example(verb, capsys):
    code, printed, _ = run(f"{verb} --help", capsys)
    assert code == 0
    assert f"  musicvae {verb} " in printed.partition("\nexample")[2]


def test_version(capsys):
    assert run("--version", capsys) == (0, f"musicvae {musicvae.__version__}\n", "")


MISTAKES = {
    "sampel": "musicvae: found unknown verb sampel: did you mean sample?",
    "xylophone": f"musicvae: found unknown verb xylophone, expected one of {', '.join(COMMANDS)}",
    "--verzion": "musicvae: found unknown option --verzion: did you mean --version?",
    "sample --temperatur 1": "musicvae sample: found unknown option --temperatur: did you mean "
    "--temperature?",
    "sample --num-samples=3": "musicvae sample: found unknown option --num-samples: did you mean "
    "--num_samples?",
    "tap --style rock": "musicvae tap: found unknown option --style, expected one of -h, --help, "
    "-o, --output_dir, --temperature, --seed, --bpm, --pitch_map, --channel, --model, --device, "
    "--backend, --soundfont, --dry_run",
    "sample --seed x": "musicvae sample: --seed: found x, expected a whole number, 0 to 4294967295",
    "sample --bpm nan": "musicvae sample: --bpm: found nan, expected a number, 0 or more",
    "sample --bpm": "musicvae sample: --bpm: expected one argument",
    "evaluate x --split all": "musicvae evaluate: --split: found all, expected one of 'train', "
    "'validation', 'test'",
    "evaluate": "musicvae evaluate: the following arguments are required: MODEL",
}


@pytest.mark.parametrize(("words", "error"), MISTAKES.items(), ids=MISTAKES)
def test_a_wrong_command_line_is_one_line_and_code_2(words, error, capsys):
    assert run(words, capsys) == (2, "", f"{error}\n")


@pytest.mark.parametrize(
    "words", ["--help", "--version", "sampel", *(f"{verb} --help" for verb in COMMANDS)]
)
def test_nothing_heavy_is_imported_for_help_and_mistakes(words):
    code = (
        "import sys\nfrom musicvae.cli import main\n"
        f"try: main({words.split()})\nexcept SystemExit: pass\n"
        f"assert not (heavy := {{*sys.modules}} & {set(HEAVY)}), heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=60)


def raising(error: BaseException):
    def run(arguments):
        raise error

    return run


@pytest.fixture
def failing(monkeypatch):
    """Lets the verb `sample` fail with an error."""

    def fail(error: BaseException) -> None:
        command = Command("", ("sample",), lambda parser: None, raising(error))
        monkeypatch.setitem(COMMANDS, "sample", command)

    return fail


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("bars: found 0,\n  expected 1"), "bars: found 0, expected 1"),
        (OSError(2, "No such file", "x.mid"), "[Errno 2] No such file: 'x.mid'"),
        (
            ModuleNotFoundError("No module named 'datasets'", name="datasets"),
            "found no package datasets, expected those of the extra train: "
            'pip install -e ".[train]"',
        ),
        (
            ModuleNotFoundError("No module named 'torch'", name="torch"),
            'found no package torch, expected those of the extra torch: pip install -e ".[torch]"',
        ),
    ],
    ids=["value", "file", "training package", "torch"],
)
def test_an_error_is_one_line_and_code_1(error, line, failing, capsys):
    failing(error)
    assert run("sample", capsys) == (1, "", f"musicvae sample: {line}\n")


def test_ctrl_c_is_one_line_and_code_130(failing, capsys):
    failing(KeyboardInterrupt())
    assert run("sample", capsys) == (130, "", "musicvae sample: interrupted\n")


def test_a_defect_of_the_program_keeps_its_traceback(failing, capsys):
    failing(TypeError("a defect"))
    with pytest.raises(TypeError, match="a defect"):
        main(["sample"])


def test_python_m_musicvae_is_the_command():
    command = [sys.executable, "-m", "musicvae", "--version"]
    run = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert run.stdout == f"musicvae {musicvae.__version__}\n"


@pytest.mark.slow
def test_an_error_of_training_is_one_line_and_the_launcher_adds_none(tmp_path):
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--quiet", "--cpu"]
    launcher += ["--num_processes=1", "--num_machines=1", "--mixed_precision=no"]
    words = [train_accelerate.__file__, "--config", "quickstart", "--batch_size", "0"]
    run = subprocess.run(
        [*launcher, "--dynamo_backend=no", *words],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode == 1
    error = "train_accelerate.py: batch_size: found 0, expected at least 1\n"
    assert (run.stdout, run.stderr) == ("", error)
