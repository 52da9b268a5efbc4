"""The verbs of the `musicvae` command.

Nothing but the standard library is imported before `run`, so that help and errors come at once.
"""

from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass

from ..terminal import Parser


@dataclass(frozen=True)
class Command:
    """A verb of the command line.

    Attributes:
        summary: says what it does, in the list of verbs and in its own help.
        examples: command lines without the leading "musicvae".
        add_arguments: adds its arguments to a parser.
        run: does it; returns the exit code, or None for 0.
    """

    summary: str
    examples: tuple[str, ...]
    add_arguments: Callable[[Parser], None]
    run: Callable[[Namespace], int | None]
