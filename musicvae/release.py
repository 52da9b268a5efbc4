"""Makes a released model again: training by its recipe, rounding, samples, evaluation, card.

A run in outputs/ that is finished is taken as it is, and one that is not is resumed.
"""

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import ModelCard

from modeling_musicvae import MusicVAEModel
from processing import MusicVAEProcessor

from .atomic import whole_folder
from .data.windows import load_windows
from .evaluation.card import eval_results, evaluation_section
from .evaluation.evaluate import Evaluation
from .evaluation.report import Report, facts_of, read_report
from .onnx_export import add_graphs
from .paths import RELEASED
from .tasks import FIRST_RECIPES, RECIPES
from .training.checkpoints import PROGRESS, RUN, checkpoints, read_json
from .training.latents import fit_latents
from .training.model_folder import write_samples

MAX_WEIGHTS_BYTES = 16 * 10**6
OUTPUTS = Path("outputs")
NUM_SAMPLES = 4


class ReleaseError(ValueError):
    """A trained model that cannot be released."""


def release(name: str, split: str, data_dir: str | None) -> None:
    """Makes a released model, which replaces an older one when it is whole.

    Args:
        name: of the model, one of `RECIPES`.
        split: of Groove, to evaluate on.
        data_dir: Groove's zip or folder; if not given, it is downloaded.

    Raises:
        ReleaseError: there is no release of this name, or the weights are too large.
        CalledProcessError: the training run failed; what it printed says why.
    """
    if name not in RECIPES:
        raise ReleaseError(f"name: found {name}, expected one of {', '.join(RECIPES)}")
    trained = train(RECIPES[name], data_dir)
    place = RELEASED / name
    with whole_folder(place, replace=True) as folder:
        round_model(trained, folder, data_dir)
        add_samples(folder)
        export_graphs(folder, name)
        report = measure(folder, name, split, data_dir)
        shutil.copytree(report_folder(name), folder / "evaluation")
        write_card(name, trained, report, folder)
    print(f"Released  {place}")


def train(recipe: str, data_dir: str | None) -> Path:
    """The folder of the recipe's run, which is trained to its end unless it is finished."""
    output_dir = OUTPUTS / recipe
    # A run ends with its model folder, and this with the picture of its samples.
    if not (output_dir / "samples.png").exists():
        words = ["--config", recipe, "--output_dir", str(output_dir)]
        if recipe in FIRST_RECIPES:
            words += ["--pretrained_model", str(train(FIRST_RECIPES[recipe], data_dir))]
        if data_dir is not None:
            words += ["--data_dir", data_dir]
        if checkpoints(output_dir):
            words += ["--resume_from_checkpoint", "latest"]
        launch(words)
    return output_dir


def launch(words: Sequence[str]) -> None:
    """Trains in a process of its own."""
    launcher = [sys.executable, "-m", "accelerate.commands.launch"]
    subprocess.run([*launcher, "-m", "train_accelerate", *words], check=True)


def round_model(trained: Path, folder: Path, data_dir: str | None) -> None:
    """Writes a model whose weights are float16 in the file, and float32 again when it is loaded.

    What is fitted to the latents of the training windows is fitted with the rounded weights.
    """
    model = MusicVAEModel.from_pretrained(trained)
    size = sum(2 * tensor.numel() for tensor in model.state_dict().values())
    if size > MAX_WEIGHTS_BYTES:
        raise ReleaseError(
            f"{trained}: found {size / 1e6:.1f} MB of weights in float16, expected at most "
            f"{MAX_WEIGHTS_BYTES / 1e6:.0f}"
        )
    model.half().float()
    config = model.config
    fit_latents(
        model,
        load_windows(
            "train", data_dir=data_dir, bars=config.bars, steps_per_bar=config.steps_per_bar
        ),
    )
    weights = {name: tensor.half() for name, tensor in model.state_dict().items()}
    model.save_pretrained(folder, state_dict=weights)
    MusicVAEProcessor.from_pretrained(trained).save_pretrained(folder)
    for code in folder.glob("*.py"):  # the package has it; it is added where a folder is published
        code.unlink()


def add_samples(folder: Path) -> None:
    """New drums of the rounded model; those of a conditional model go with demo grooves, for the
    dataset is not ours to give away."""
    model = MusicVAEModel.from_pretrained(folder)
    processor = MusicVAEProcessor.from_pretrained(folder)
    bars, steps_per_bar = model.config.bars, model.config.steps_per_bar
    windows = load_windows(
        "validation", data="demo", bars=bars, steps_per_bar=steps_per_bar, hop_bars=bars
    )
    write_samples(model, processor, windows, folder, NUM_SAMPLES, seed=0)


def export_graphs(folder: Path, name: str) -> None:
    """Adds what runs the model without torch."""
    model = MusicVAEModel.from_pretrained(folder)
    add_graphs(model, MusicVAEProcessor.from_pretrained(folder), name, folder)


def measure(folder: Path, name: str, split: str, data_dir: str | None) -> Report:
    """Evaluates a model, unless the report that is there is of its weights and of the split."""
    output_dir = report_folder(name)
    path = output_dir / "evaluation.json"
    if not path.exists() or not is_of(read_report(path), folder, split):
        place = f"musicvae/released/{name}"
        command = shlex.join(["musicvae", "evaluate", place, "--split", split])
        Evaluation(folder, data_dir=data_dir, split=split).write(output_dir, name, command)
    return read_report(path)


def report_folder(name: str) -> Path:
    """Where the evaluation of a release is kept, for a further attempt."""
    return OUTPUTS / "releases" / name


def is_of(report: Report, model: Path, split: str) -> bool:
    facts = {"split": split, **facts_of(MusicVAEModel.from_pretrained(model))}
    return facts.items() <= report.facts.items()


def write_card(name: str, trained: Path, report: Report, folder: Path) -> None:
    """Writes the card of training with the figures of the evaluation instead of its own."""
    card = ModelCard.load(trained / "README.md")
    # Where the data lay on this machine helps no one else.
    text = re.sub(r" --data_dir[ =]\S+", "", card.text)
    text, citation = text.split("## Citation")
    text = text.split("## Evaluation")[0] + evaluation_section(report)
    card.text = f"{text}\n{recreation_section(name, trained, report)}\n## Citation{citation}"
    card.data.eval_results = eval_results(report)
    card.data.metrics = [result.metric_type for result in card.data.eval_results]
    card.save(folder / "README.md")


def recreation_section(name: str, trained: Path, report: Report) -> str:
    last = checkpoints(trained)[-1]
    runs = [last]
    if trained.name in FIRST_RECIPES:
        runs += checkpoints(trained.with_name(FIRST_RECIPES[trained.name]))[-1:]
    hours = sum(read_json(run / PROGRESS)["seconds"] for run in runs) / 3600
    seed = read_json(last / RUN)["seed"]
    libraries = ", ".join(
        f"{library} {number}" for library, number in report.facts["versions"].items()
    )
    return f"""\
## Recreate

```
musicvae release {name}
```

trains with seed {seed}, rounds the weights to float16, and evaluates them. This model was made with
{libraries}, at commit {commit()}, on {report.facts["machine"]}, in {hours:.1f} hours of training.
"""


def commit() -> str:
    """That of the repository, and "-dirty" where files differ from it."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    git = subprocess.run(command, capture_output=True, text=True)
    return git.stdout.strip() if git.returncode == 0 else "unknown"
