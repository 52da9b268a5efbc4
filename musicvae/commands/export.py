"""`musicvae export`: models for onnxruntime, and the page with them for a static host."""

from argparse import Namespace
from pathlib import Path

from ..terminal import Parser
from . import Command


def add_arguments(parser: Parser) -> None:
    parser.add_argument(
        "model",
        metavar="MODEL",
        nargs="?",
        help="its folder, or its name on the Hub (default: the released one for new grooves)",
    )
    parser.add_argument(
        "-o", "--output_dir", metavar="FOLDER", type=Path, required=True, help="the folder to write"
    )
    parser.add_argument(
        "--space",
        action="store_true",
        help="write the page in the browser with all released models, for a static Space",
    )
    parser.add_argument(
        "--int8",
        action="store_true",
        help="write the decoder with 8-bit weights too: half as large and twice as fast, its draws "
        "a little different",
    )


def run(arguments: Namespace) -> None:
    from ..atomic import replaced
    from ..exporting import export_model, exported_releases
    from ..finding import require_model
    from ..paths import MUSICVAE_GROOVE_4BAR, cache_folder
    from ..web_server import runtime_folder, write_space

    if arguments.space:
        if arguments.model:
            raise ValueError(
                f"model: found {arguments.model}, expected none with --space, which takes all "
                "released models"
            )
        write_space(arguments.output_dir, exported_releases(), runtime_folder(cache_folder()))
        earlier = ""
    else:
        earlier = replaced(*arguments.output_dir.rglob("*"))
        model = arguments.model or MUSICVAE_GROOVE_4BAR
        require_model(model)
        export_model(model, arguments.output_dir, arguments.int8)
    size = sum(path.stat().st_size for path in arguments.output_dir.rglob("*") if path.is_file())
    print(f"Exported   {arguments.output_dir} ({size / 1e6:.1f} MB){earlier}")


COMMAND = Command(
    "write a model for onnxruntime, which needs no torch, or the page with all of them",
    ("export -o exported", "export outputs/groove_4bar -o exported", "export --space -o space"),
    add_arguments,
    run,
)
