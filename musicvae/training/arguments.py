"""The arguments of a training run, from a YAML recipe and from the command line, which wins."""

import inspect
import math
import re
import shlex
from argparse import ArgumentTypeError
from dataclasses import asdict, dataclass, field, fields, make_dataclass
from pathlib import Path
from typing import Any, Literal

import yaml
from transformers import HfArgumentParser

from modeling_musicvae import MusicVAEConfig, MusicVAEModel
from processing.drum_kit import DRUM_NAMES

from ..data.windows import MIDI_DATA
from ..paths import RECIPES
from ..terminal import Parser

# Fields of the config that the data decide.
KIT_FIELDS = ("num_drums", "styles")


def argument(default: Any, help: str) -> Any:
    metadata = {"help": help.replace("%", "%%")}
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass
class DataArguments:
    data: str = argument(
        "groove",
        "which drums to train on: groove, midi_folder, demo, or a dataset of windows: 'user/name' "
        "on the Hub, or a folder of Parquet files",
    )
    data_dir: str | None = argument(None, "Groove's zip or folder, or your folder of MIDI files")
    hop_bars: int = argument(1, "bars between the starts of two training windows")
    num_proc: int | None = argument(None, "processes that read MIDI files")
    num_workers: int = argument(0, "processes that load batches, for each training process")
    streaming: bool = argument(
        False, "read training windows as they come, where the disk cannot hold them all"
    )
    shuffle_buffer_size: int = argument(
        10_000, "streamed windows that are held, for the next one to be drawn from"
    )
    recombination: float = argument(
        0.0, "augmentation: chance that a training sequence takes drums of another one"
    )
    cymbal_exchange: float = argument(
        0.0, "augmentation: chance that closed hi-hat and ride change places in a sequence"
    )
    velocity_scaling: float = argument(
        0.0, "augmentation: training sequences are up to this part louder, or as much softer"
    )
    hit_dropout: float = argument(
        0.0, "augmentation: training sequences lose hits, rather soft ones, with up to this chance"
    )

    @property
    def source(self) -> str:
        """Where the drums are from, for messages."""
        return self.data_dir or self.data


def drum_number(name: str) -> int:
    """The number of a drum of a piano roll by its name."""
    if name not in DRUM_NAMES:
        raise ArgumentTypeError(f"found {name!r}, expected one of {', '.join(DRUM_NAMES)}")
    return DRUM_NAMES.index(name)


def architecture_arguments(config: type[MusicVAEConfig]) -> type:
    """A dataclass for the command line with the fields of a config, but for the kit's.

    Types and defaults are those of the config, descriptions those of its docstring.
    """
    descriptions = described_arguments(inspect.getdoc(config) or "")
    columns = []
    for name, kind in inspect.get_annotations(config).items():
        if name in KIT_FIELDS:
            continue
        default = getattr(config, name)
        if kind == int | float:
            kind, default = float, float(default)
        if name == "removed_drums":
            kind, default = list[drum_number], list(default)  # type: ignore[valid-type]
        columns.append((name, kind, argument(default, descriptions[name])))
    return make_dataclass("ArchitectureArguments", columns)


def described_arguments(docstring: str) -> dict[str, str]:
    """The descriptions in the "Args" section of a docstring, each as one line, by name."""
    (section,) = re.findall(r"^Args:\n(.*?)(?:^\S|\Z)", docstring, re.DOTALL | re.MULTILINE)
    found = re.findall(r"^ {4}(\w+): (.*?)(?=^ {4}\S|\Z)", section, re.DOTALL | re.MULTILINE)
    return {name: " ".join(text.split()).rstrip(".") for name, text in found}


ArchitectureArguments = architecture_arguments(MusicVAEConfig)


@dataclass
class TrainingArguments:
    output_dir: str = argument("outputs/musicvae", "where the model and all else is written")
    pretrained_model: str | None = argument(
        None,
        "a model to start from, its folder or its name on the Hub; what is not given of the "
        "architecture is as it has it",
    )
    max_steps: int | None = argument(None, "optimiser steps, instead of num_epochs")
    num_epochs: int = argument(10, "passes over the training windows")
    batch_size: int = argument(64, "sequences in a step, over all processes together")
    gradient_accumulation_steps: int = argument(
        1, "parts in which the sequences of a step are computed one after another, to save memory"
    )
    learning_rate: float = argument(3e-3, "AdamW's learning rate, after the warm-up")
    min_learning_rate: float = argument(3e-5, "learning rate at the end of its decay by a cosine")
    warmup_steps: int = argument(100, "steps in which the learning rate grows from 0, linearly")
    decay_steps: int | None = argument(
        None, "steps over which the learning rate decays; if not given, all of the run"
    )
    weight_decay: float = argument(0.05, "AdamW's weight decay, of all weights but biases")
    max_grad_norm: float = argument(1.0, "gradients are clipped to this global norm")
    max_skipped_steps: int = argument(
        10, "steps in a row that may be skipped because their gradient is not finite"
    )
    mixed_precision: Literal["no", "bf16", "fp16"] | None = argument(
        None, "precision of the products; if not given, what accelerate is launched with"
    )
    seed: int = argument(0, "seed of everything random")
    eval_steps: int = argument(500, "steps between evaluations on the validation split")
    save_steps: int = argument(500, "steps between checkpoints")
    resume_from_checkpoint: str | None = argument(None, "'latest' or the folder of a checkpoint")
    num_samples: int = argument(4, "new MIDI files to write at the end")
    report_to: list[str] = argument(
        ["tensorboard"], "accelerate's trackers, by name: tensorboard, wandb, trackio"
    )


@dataclass
class HubArguments:
    push_to_hub: bool = argument(False, "publish the model on the Hugging Face Hub")
    hub_model_id: str | None = argument(
        None, "its name there, 'user/name'; if not given, yours and that of the output folder"
    )
    hub_private: bool = argument(False, "make its repository private")
    hub_strategy: Literal["end", "best", "every_save"] = argument(
        "end", "push when training ends, also when the model is the best so far, or at each save"
    )


@dataclass
class Arguments:
    data: DataArguments
    architecture: Any  # ArchitectureArguments
    training: TrainingArguments
    hub: HubArguments
    command: str


class TrainingParser(Parser, HfArgumentParser):
    """A parser of dataclasses whose errors are one line."""


def parse_arguments(argv: list[str], description: str = "") -> Arguments:
    """The arguments of a recipe (--config) and of the command line, which wins.

    With a pretrained model, what neither gives of the architecture is as its config has it.

    Args:
        argv: the words of the command line after the script's name.
        description: what --help says of the script.
    """
    groups = (DataArguments, ArchitectureArguments, TrainingArguments, HubArguments)
    parser = TrainingParser(groups, description=description)
    parser.add_argument("--config", help="YAML recipe: any of the other arguments")
    command = shlex.join(["accelerate", "launch", "train_accelerate.py", *argv])
    known, _ = parser.parse_known_args(argv)
    if known.config:
        names = {field.name for group in groups for field in fields(group)}
        argv = recipe_arguments(find_recipe(known.config), names) + argv
    known, _ = parser.parse_known_args(argv)
    if known.pretrained_model:
        MusicVAEModel.check_config_file(known.pretrained_model)
        config = MusicVAEConfig.from_pretrained(known.pretrained_model)
        parser.set_defaults(
            **{field.name: getattr(config, field.name) for field in fields(ArchitectureArguments)}
        )
    data, architecture, training, hub, _ = parser.parse_args_into_dataclasses(argv)
    check_arguments(data, architecture, training, hub)
    return Arguments(data, architecture, training, hub, command)


def find_recipe(name: str) -> Path:
    """The file of a recipe: a path, or the name of one that comes with the package."""
    packaged = RECIPES / f"{name}.yaml"
    if packaged.is_file():
        return packaged
    if not Path(name).is_file():
        names = sorted(path.stem for path in RECIPES.glob("*.yaml"))
        raise ValueError(f"config: found {name}, expected a YAML file or one of {', '.join(names)}")
    return Path(name)


def recipe_arguments(path: Path, names: set[str]) -> list[str]:
    """A YAML recipe as command-line arguments."""
    with path.open("rb") as file:
        recipe = yaml.load(file, yaml.BaseLoader)  # in which "no" is a word, not False
    if not isinstance(recipe, dict):
        raise ValueError(f"{path}: found {type(recipe).__name__}, expected 'argument: value' lines")
    if unknown := sorted(set(map(str, recipe)) - names):
        raise ValueError(f"{path}: found unknown arguments {unknown}")
    return [
        word
        for name, value in recipe.items()
        for word in ([f"--{name}", *value] if isinstance(value, list) else [f"--{name}={value}"])
    ]


def check_arguments(
    data: DataArguments,
    architecture: Any,
    training: TrainingArguments,
    hub: HubArguments,
) -> None:
    """Raises an error that names the argument if one is out of range or goes with no other."""
    MusicVAEConfig(**asdict(architecture))
    check_data(data)
    check_training(training)
    if data.streaming and training.max_steps is None:
        raise ValueError("max_steps: found none, expected a number: a stream has no length")
    if not hub.push_to_hub and hub != HubArguments():
        raise ValueError("push_to_hub: found False, expected True with other arguments of the Hub")


def check_data(data: DataArguments) -> None:
    check_minimums(data, hop_bars=1, num_proc=1, num_workers=0, shuffle_buffer_size=1)
    for name in ("recombination", "cymbal_exchange", "velocity_scaling", "hit_dropout"):
        value = getattr(data, name)
        if not 0 <= value <= 1:
            raise ValueError(f"{name}: found {value}, expected 0 to 1")
    check_source(data)


def check_training(training: TrainingArguments) -> None:
    check_minimums(
        training,
        max_steps=1,
        num_epochs=1,
        batch_size=1,
        gradient_accumulation_steps=1,
        warmup_steps=0,
        decay_steps=1,
        max_skipped_steps=0,
        seed=0,
        eval_steps=1,
        save_steps=1,
        num_samples=1,
    )
    if training.batch_size % training.gradient_accumulation_steps:
        raise ValueError(
            f"batch_size: found {training.batch_size}, expected a multiple of "
            f"gradient_accumulation_steps, {training.gradient_accumulation_steps}"
        )
    for name in ("learning_rate", "max_grad_norm"):
        value = getattr(training, name)
        if not 0 < value < math.inf:
            raise ValueError(f"{name}: found {value}, expected a positive number")
    if not 0 <= training.weight_decay < math.inf:
        raise ValueError(f"weight_decay: found {training.weight_decay}, expected 0 or more")
    if not 0 <= training.min_learning_rate <= training.learning_rate:
        raise ValueError(
            f"min_learning_rate: found {training.min_learning_rate}, expected 0 to learning_rate"
        )


def check_minimums(arguments: Any, **minimums: int) -> None:
    for name, minimum in minimums.items():
        value = getattr(arguments, name)
        if value is not None and value < minimum:
            raise ValueError(f"{name}: found {value}, expected at least {minimum}")


def check_source(data: DataArguments) -> None:
    if data.data == "midi_folder" and data.data_dir is None:
        raise ValueError("data_dir: found none, expected the folder of your MIDI files")
    if data.data not in ("groove", "midi_folder") and data.data_dir is not None:
        raise ValueError(f"data_dir: found {data.data_dir}, expected none with --data {data.data}")
    if data.data not in MIDI_DATA and "/" not in data.data and not Path(data.data).is_dir():
        raise ValueError(
            f"data: found {data.data!r}, expected {', '.join(MIDI_DATA)}, 'user/name' or a folder"
        )
