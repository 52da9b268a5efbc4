"""`musicvae evaluate`: measures a model on a split of a dataset."""

from argparse import Namespace
from pathlib import Path

from ..terminal import Parser, number, whole_number
from . import Command


def add_arguments(parser: Parser) -> None:
    parser.add_argument("model", metavar="MODEL", help="its folder, or its name on the Hub")
    parser.add_argument(
        "--data", default="groove", help="as train_accelerate.py takes it (default: %(default)s)"
    )
    parser.add_argument("--data_dir", help="Groove's zip or folder, or your folder of MIDI files")
    parser.add_argument(
        "--split",
        choices=("train", "validation", "test"),
        default="test",
        help="to evaluate on (default: %(default)s)",
    )
    parser.add_argument(
        "-o", "--output_dir", metavar="FOLDER", type=Path, help="(default: MODEL/evaluation)"
    )
    parser.add_argument(
        "--temperature", type=number(0), help="of new drums (default: that of `musicvae sample`)"
    )
    parser.add_argument("--parts", nargs="+", help="parts to measure (default: all that apply)")
    numbers = {
        "batch_size": (64, 1, "windows in a batch"),
        "seed": (0, 0, "of everything random"),
        "num_samples": (1000, 2, "new drums to draw"),
    }
    for name, (default, least, description) in numbers.items():
        parser.add_argument(
            f"--{name}",
            type=whole_number(least),
            default=default,
            help=f"{description} (default: %(default)s)",
        )


def run(arguments: Namespace) -> None:
    if arguments.data == "midi_folder" and arguments.data_dir is None:
        raise ValueError("data_dir: found none, expected the folder of your MIDI files")
    if arguments.output_dir is None:
        if not Path(arguments.model).is_dir():
            raise ValueError(
                f"output_dir: found none, and no model folder {arguments.model}, expected a folder "
                "to write to for a model on the Hub"
            )
        arguments.output_dir = Path(arguments.model, "evaluation")

    from ..finding import require_model

    require_model(arguments.model)  # before the heavy imports

    from ..evaluation.evaluate import Evaluation

    evaluation = Evaluation(
        arguments.model,
        arguments.data,
        arguments.data_dir,
        arguments.split,
        arguments.parts,
        arguments.batch_size,
        arguments.num_samples,
        arguments.temperature,
        arguments.seed,
    )
    evaluation.write(arguments.output_dir, arguments.model, arguments.command)


COMMAND = Command(
    "measure a model on a split of a dataset: figures, tables and pictures",
    ("evaluate outputs/groove_4bar --split validation",),
    add_arguments,
    run,
)
