"""`musicvae push-data`: Groove's windows as a dataset repository on the Hub."""

from argparse import Namespace

from ..terminal import Parser, whole_number
from . import Command


def add_arguments(parser: Parser) -> None:
    parser.add_argument("repository", metavar="REPOSITORY", help="its name on the Hub, user/name")
    parser.add_argument("--data_dir", help="Groove's zip or folder (default: it is downloaded)")
    parser.add_argument(
        "--bars", type=whole_number(1), default=4, help="in a window (default: %(default)s)"
    )
    parser.add_argument(
        "--hop_bars",
        type=whole_number(1),
        default=1,
        help="bars between the starts of windows (default: %(default)s)",
    )
    parser.add_argument("--private", action="store_true", help="make the repository private")


def run(arguments: Namespace) -> None:
    from ..data.dataset_repository import push_groove

    push_groove(
        arguments.repository,
        arguments.data_dir,
        arguments.bars,
        arguments.hop_bars,
        arguments.private,
    )


COMMAND = Command(
    "push windows of the Groove MIDI Dataset to the Hub, as a dataset",
    ("push-data you/groove_windows",),
    add_arguments,
    run,
)
