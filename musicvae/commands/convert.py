"""`musicvae convert`: Magenta's checkpoints as model folders."""

from argparse import Namespace

from ..terminal import Parser, whole_number
from . import Command


def add_arguments(parser: Parser) -> None:
    parser.add_argument(
        "checkpoint",
        metavar="CHECKPOINT",
        help="a folder or http(s) address in the format of magenta.js, or an .npz file of "
        "TensorFlow's variables by their names",
    )
    parser.add_argument(
        "-o", "--output_dir", metavar="FOLDER", required=True, help="the model folder to make"
    )
    parser.add_argument(
        "--bars",
        type=whole_number(1),
        help="in a sequence of an .npz file, which does not say it (default: 4)",
    )
    parser.add_argument(
        "--push_to_hub", metavar="REPOSITORY", help="its name on the Hub, to upload the folder to"
    )


def run(arguments: Namespace) -> None:
    from ..conversion import convert, push

    convert(arguments.checkpoint, arguments.output_dir, arguments.bars)
    print(f"Model      {arguments.output_dir}")
    if arguments.push_to_hub:
        print(f"Published  {push(arguments.output_dir, arguments.push_to_hub)}")


COMMAND = Command(
    "turn a drum model that Magenta published into a model folder",
    (
        "convert https://storage.googleapis.com/magentadata/js/checkpoints/music_vae/groovae_4bar "
        "-o outputs/groovae_4bar",
    ),
    add_arguments,
    run,
)
