"""Trains, measures and packages a released model again, from data, recipe and seed.

It is put among those of the package; what an earlier attempt has trained and measured in outputs/
is taken.
"""

import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import ModelCard

from modeling_musicvae import MusicVAEConfig, MusicVAEModel
from musicvae.atomic import whole_folder, write_text
from musicvae.cli import verb_parser
from musicvae.data.windows import load_split, load_splits
from musicvae.evaluation import evaluate as evaluate_musicvae
from musicvae.evaluation.card import eval_results, evaluation_section
from musicvae.evaluation.plots import draw_rate_distortion
from musicvae.evaluation.report import Report, as_json, facts_of, read_reports
from musicvae.training.arguments import parse_arguments as parse_training_arguments
from musicvae.training.checkpoints import PROGRESS, RUN, checkpoints, read_json
from musicvae.training.model_folder import write_samples
from processing import MusicVAEProcessor

# Each release and the recipe that its model is of.
RECIPES = {
    "musicvae-groove-4bar": "groove_4bar",
    "musicvae-groove-4bar-humanize": "humanize",
    "musicvae-groove-4bar-tap": "tap_to_drums",
}
# The recipe that a release is compared with. Both are trained further, with each of these weights
# of the KL divergence, and the model that is released is a point of that curve.
BASELINES = {"musicvae-groove-4bar": "groove_4bar_flat"}
MAX_BETAS = (0.03, 0.1, 0.3, 1.0)
RELEASED_MAX_BETA = 0.3

MAX_WEIGHTS_BYTES = 16 * 10**6
SCRIPT = Path(__file__).with_name("train_accelerate.py")
OUTPUTS, CHECKPOINTS = Path("outputs"), Path("checkpoints")
# In the folder of the evaluation: the reports of the models compared.
COMPARISON = "comparison.json"


class ReleaseError(ValueError):
    """A trained model that cannot be released."""


def release(name: str, split: str, data_dir: str | None) -> None:
    """Makes checkpoints/NAME, and replaces an older one when the new one is whole.

    Raises:
        ReleaseError: there is no release of this name, or the weights are too large.
        CalledProcessError: a training run failed; what it printed says why.
    """
    if name not in RECIPES:
        raise ReleaseError(f"name: found {name}, expected one of {', '.join(RECIPES)}")
    recipe = RECIPES[name]
    data_words = [] if data_dir is None else ["--data_dir", data_dir]
    runs = [train(recipe, data_words)]
    if name in BASELINES:
        runs = train_curve(runs[0], train(BASELINES[name], data_words), data_words)
    trained, *compared = runs

    place, evaluations = CHECKPOINTS / name, OUTPUTS / "releases" / name
    with whole_folder(place, replace=True) as folder:
        round_model(trained, folder)
        add_samples(recipe, folder)
        words = ["--split", split]
        report = measure(folder, f"{CHECKPOINTS}/{name}", evaluations / name, words, data_words)
        words += ["--parts", "reconstruction"]
        others = [
            measure(run, str(run), evaluations / run.name, words, data_words) for run in compared
        ]
        shutil.copytree(evaluations / name, folder / "evaluation")
        if others:
            write_comparison(report, others, folder / "evaluation")
        write_card(name, runs, report, others, folder)
    print(f"Released  {place}")


def train_curve(base: Path, baseline: Path, words: Sequence[str]) -> list[Path]:
    """The run that is released first, those that it goes on from and is compared with, and all
    other points of the curve."""
    curve = {beta: train_further(base, beta, words) for beta in MAX_BETAS}
    released = curve.pop(RELEASED_MAX_BETA)
    compared = [train_further(baseline, beta, words) for beta in MAX_BETAS]
    return [released, base, baseline, *curve.values(), *compared]


def train(recipe: str, words: Sequence[str]) -> Path:
    return run_training(OUTPUTS / recipe, ["--config", f"recipes/{recipe}.yaml", *words])


def train_further(trained: Path, max_beta: float, words: Sequence[str]) -> Path:
    """Trains a model further with another weight of the KL divergence."""
    decoder = MusicVAEConfig.from_pretrained(trained).decoder
    words = ["--config", "recipes/rate_distortion.yaml", *words]
    words += ["--pretrained_model", str(trained), "--max_beta", str(max_beta)]
    return run_training(OUTPUTS / "rate_distortion" / f"{decoder}-{max_beta}", words)


def run_training(output_dir: Path, words: Sequence[str]) -> Path:
    """Trains in a process of its own, from the last checkpoint on, unless that is done."""
    # A run ends with its model folder, and this with the picture.
    if not (output_dir / "samples.png").exists():
        words = [*words, "--output_dir", str(output_dir)]
        if checkpoints(output_dir):
            words += ["--resume_from_checkpoint", "latest"]
        launch(words)
    return output_dir


def launch(words: Sequence[str]) -> None:
    launcher = [sys.executable, "-m", "accelerate.commands.launch"]
    subprocess.run([*launcher, str(SCRIPT), *words], check=True)


def round_model(trained: Path, folder: Path) -> None:
    """Writes a model whose weights are float16 in the file, and float32 again when it is loaded."""
    model = MusicVAEModel.from_pretrained(trained)
    weights = {name: tensor.half() for name, tensor in model.state_dict().items()}
    size = sum(tensor.nbytes for tensor in weights.values())
    if size > MAX_WEIGHTS_BYTES:
        raise ReleaseError(
            f"{trained}: found {size / 1e6:.1f} MB of weights in float16, expected at most "
            f"{MAX_WEIGHTS_BYTES / 1e6:.0f}"
        )
    model.save_pretrained(folder, state_dict=weights)
    MusicVAEProcessor.from_pretrained(trained).save_pretrained(folder)


def add_samples(recipe: str, folder: Path) -> None:
    """New drums of the rounded model, as training writes those of the model that it leaves; but a
    model that is told what to play is told it of demo grooves, not of the dataset."""
    words = ["--config", f"recipes/{recipe}.yaml", "--data", "demo"]
    arguments = parse_training_arguments([*words, "--output_dir", str(OUTPUTS / recipe)])
    splits = load_splits(arguments)
    windows = load_split(splits, "validation", arguments, arguments.architecture.bars)
    model = MusicVAEModel.from_pretrained(folder)
    processor = MusicVAEProcessor.from_pretrained(folder)
    write_samples(model, processor, windows, folder, arguments.training)


def measure(
    model: Path, name: str, output_dir: Path, words: Sequence[str], data_words: Sequence[str]
) -> Report:
    """Evaluates a model, unless the report that is there is of its weights and of the split."""
    argv = [str(model), "--output_dir", str(output_dir), *words, *data_words]
    arguments = verb_parser("evaluate").parse_args(argv)
    path = output_dir / "evaluation.json"
    if not path.exists() or not is_of(read_reports(path)[0], model, arguments.split):
        command = shlex.join(["musicvae", "evaluate", name, *words])
        evaluate_musicvae.evaluate(arguments, name, command)
    return read_reports(path)[0]


def is_of(report: Report, model: Path, split: str) -> bool:
    facts = {"split": split, **facts_of(MusicVAEModel.from_pretrained(model))}
    return facts.items() <= report.facts.items()


def write_comparison(report: Report, others: Sequence[Report], folder: Path) -> None:
    """Writes the reports of the models compared, and the picture of the curve."""
    content = [other.facts | {"measures": as_json(other.measures)} for other in others]
    write_text(folder / COMPARISON, json.dumps(content, indent=1) + "\n")
    _, _, *curve = others
    draw_rate_distortion([report, *curve], folder / "rate_distortion.png")


def write_card(
    name: str, runs: Sequence[Path], report: Report, others: Sequence[Report], folder: Path
) -> None:
    """Writes the card of training with the figures of the evaluation instead of its own.

    Args:
        name: of the release.
        runs: what was trained for it, see `train_curve`.
        report: of the model.
        others: of the models that it is compared with.
        folder: where to.
    """
    card = ModelCard.load(runs[0] / "README.md")
    # Where the data lay on this machine helps no one else.
    text = re.sub(r" --data_dir[ =]\S+", "", card.text)
    text, citation = text.split("## Citation")
    text = text.split("## Evaluation")[0] + evaluation_section(report, others)
    card.text = f"{text}\n{recreation_section(name, runs, report)}\n## Citation{citation}"
    card.data.eval_results = eval_results(report)
    card.data.metrics = [result.metric_type for result in card.data.eval_results]
    card.save(folder / "README.md")


def recreation_section(name: str, runs: Sequence[Path], report: Report) -> str:
    hours = [read_json(checkpoints(run)[-1] / PROGRESS)["seconds"] / 3600 for run in runs]
    seed = read_json(checkpoints(runs[0])[-1] / RUN)["seed"]
    libraries = ", ".join(
        f"{library} {number}" for library, number in report.facts["versions"].items()
    )
    training = f"{hours[0]:.1f} hours of training"
    if runs[1:]:
        training = (
            f"{hours[1]:.1f} hours of training with `recipes/{RECIPES[name]}.yaml`, "
            f"{60 * hours[0]:.0f} minutes of training further, and {sum(hours[2:]):.1f} hours for "
            "the models that it is compared with"
        )
    return f"""\
## Recreate

```
musicvae release {name}
```

trains with seed {seed}, rounds the weights to float16, and evaluates them. This model was made with
{libraries}, at commit {commit()}, on {report.facts["machine"]}, in {training}.
"""


def commit() -> str:
    """That of the repository, and "-dirty" where files differ from it."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    git = subprocess.run(command, capture_output=True, text=True)
    return git.stdout.strip() if git.returncode == 0 else "unknown"
