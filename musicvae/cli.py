"""The `musicvae` command: one verb for each thing that it does.

musicvae sample
musicvae humanize drums/groove-1.mid
"""

import shlex
import sys
from argparse import RawDescriptionHelpFormatter
from collections.abc import Sequence

from . import __doc__ as DESCRIPTION
from . import __version__
from .commands import Command, convert, evaluate, export, files, push_data, release, sample, web
from .terminal import Parser, one_line_errors, unknown

GROUPS = {
    "make drums": {
        "sample": sample.COMMAND,
        **files.COMMANDS,
        "web": web.COMMAND,
    },
    "work with models": {
        "evaluate": evaluate.COMMAND,
        "convert": convert.COMMAND,
        "export": export.COMMAND,
        "push-data": push_data.COMMAND,
        "release": release.COMMAND,
    },
}
COMMANDS: dict[str, Command] = {
    verb: command for commands in GROUPS.values() for verb, command in commands.items()
}


def main(argv: Sequence[str] | None = None) -> int | None:
    """Runs a command line.

    Returns:
        The exit code, or None for 0.

    Raises:
        SystemExit: of code 1 for an error, 2 for a mistake in the command line, 130 for Ctrl-C.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    parser = main_parser()
    if not words:
        parser.print_help()
        return None
    verb, *words = words
    if verb.startswith("-"):
        parser.parse_args([verb])
    if verb not in COMMANDS:
        parser.error(unknown("verb", verb, COMMANDS))
    command = COMMANDS[verb]
    with one_line_errors(f"musicvae {verb}"):
        arguments = verb_parser(verb).parse_args(words)
        arguments.command = shlex.join(["musicvae", verb, *words])
        return command.run(arguments)


def main_parser() -> Parser:
    width = max(map(len, COMMANDS)) + 2
    verbs = "\n\n".join(
        f"{group}:\n"
        + "\n".join(f"  {verb:{width}}{command.summary}" for verb, command in commands.items())
        for group, commands in GROUPS.items()
    )
    parser = Parser(
        "musicvae",
        usage="musicvae VERB ...",
        formatter_class=RawDescriptionHelpFormatter,
        description=f"{DESCRIPTION.splitlines()[0]}\n\n{verbs}",
        epilog="musicvae VERB --help explains a verb, with an example.",
    )
    parser.add_argument("--version", action="version", version=f"musicvae {__version__}")
    return parser


def verb_parser(verb: str) -> Parser:
    command = COMMANDS[verb]
    examples = "\n".join(f"  musicvae {example}" for example in command.examples)
    parser = Parser(
        f"musicvae {verb}",
        formatter_class=RawDescriptionHelpFormatter,
        description=command.summary,
        epilog=f"example:\n{examples}" if len(command.examples) == 1 else f"examples:\n{examples}",
    )
    command.add_arguments(parser)
    return parser
