"""`musicvae release`: a released model, made again."""

from argparse import Namespace

from ..terminal import Parser
from . import Command


def add_arguments(parser: Parser) -> None:
    parser.add_argument("name", metavar="NAME", help="of the release, as musicvae-groove-4bar")
    parser.add_argument("--data_dir", help="Groove's zip or folder (default: it is downloaded)")
    parser.add_argument(
        "--split",
        choices=("train", "validation", "test"),
        default="test",
        help="to evaluate on (default: %(default)s)",
    )


def run(arguments: Namespace) -> None:
    from ..release import release

    release(arguments.name, arguments.split, arguments.data_dir)


COMMAND = Command(
    "train, measure and package a released model again, from data, recipe and seed",
    ("release musicvae-groove-4bar",),
    add_arguments,
    run,
)
