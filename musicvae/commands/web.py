"""`musicvae web`: the page in the browser, on this machine."""

from argparse import Namespace

from ..terminal import Parser, whole_number
from . import Command


def add_arguments(parser: Parser) -> None:
    parser.add_argument(
        "--port",
        type=whole_number(0, 65535),
        default=8000,
        help="of the page's address; 0 takes a free one (default: %(default)s)",
    )


def run(arguments: Namespace) -> None:
    from ..exporting import exported_releases
    from ..paths import cache_folder
    from ..web_server import page_folders, page_server, runtime_folder

    folders = page_folders(exported_releases(), runtime_folder(cache_folder()))
    with page_server(folders, arguments.port) as server:
        print(f"Page       http://127.0.0.1:{server.server_port} (Ctrl-C ends it)", flush=True)
        server.serve_forever()


COMMAND = Command(
    "play the released models in the browser",
    ("web", "web --port 8080"),
    add_arguments,
    run,
)
