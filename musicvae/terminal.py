"""Errors in one line, and suggestions for mistyped words, on the command line."""

import argparse
import difflib
import locale
import math
import re
import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import NoReturn

# The packages of extras that are imported by name.
EXTRAS = {
    "onnx": ("onnxruntime",),
    "export": ("onnx", "onnxscript"),
    "torch": ("httpx2", "huggingface_hub", "jinja2", "safetensors", "torch", "transformers"),
    "train": ("accelerate", "aiohttp", "datasets", "matplotlib", "tensorboard", "yaml"),
}
# How argparse writes its errors, and how they are written here.
ARGPARSE_MESSAGES = {
    "^argument ": "",
    r"invalid choice: '(.*)' \(choose from (.*)\)": r"found \1, expected one of \2",
    "invalid int value: '(.*)'": r"found \1, expected a whole number",
    "invalid float value: '(.*)'": r"found \1, expected a number",
}
MAX_LENGTH = 600  # of a message: a few lines of a terminal
INTERRUPTED = 130  # the exit code that shells give to Ctrl-C


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line, and which suggests what may be meant."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs, allow_abbrev=False)

    def parse_known_args(self, args=None, namespace=None):
        for word in sys.argv[1:] if args is None else args:
            if word == "--":
                break
            option, _, _ = word.partition("=")
            if option.startswith("--") and option not in self._option_string_actions:
                self.error(unknown("option", option, self._option_string_actions))
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        for pattern, ours in ARGPARSE_MESSAGES.items():
            message = re.sub(pattern, ours, message)
        self.exit(2, f"{self.prog}: {message}\n")


def unknown(kind: str, word: str, known: Collection[str]) -> str:
    """The error about a word that is not among those known, with the nearest of them."""
    names = {name.lstrip("-"): name for name in known}  # dashes are no likeness
    close = difflib.get_close_matches(word.lstrip("-"), names, n=1)
    expected = (
        f": did you mean {names[close[0]]}?" if close else f", expected one of {', '.join(known)}"
    )
    return f"found unknown {kind} {word}{expected}"


def whole_number(least: int, most: int | None = None) -> Callable[[str], int]:
    """The type of an argument that is a whole number in a range, for `add_argument`."""
    expected = f"a whole number, {_range(least, most)}"
    return lambda word: _parsed(word, int, least, most, expected)


def number(least: float, most: float | None = None) -> Callable[[str], float]:
    """The type of an argument that is a number in a range, for `add_argument`."""
    expected = f"a number, {_range(least, most)}"
    return lambda word: _parsed(word, float, least, most, expected)


def _range(least: float, most: float | None) -> str:
    return f"{least} or more" if most is None else f"{least} to {most}"


def _parsed(word, kind, least, most, expected):
    try:
        value = kind(word)
    except ValueError:
        value = math.nan
    if not least <= value <= (math.inf if most is None else most) or value == math.inf:
        raise argparse.ArgumentTypeError(f"found {word}, expected {expected}")
    return value


@contextmanager
def one_line_errors(program: str) -> Iterator[None]:
    """Ends the program with one line instead of a traceback where the user can mend the error."""
    try:
        yield
    except KeyboardInterrupt:
        print(f"{program}: interrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except ModuleNotFoundError as error:
        extra = next((extra for extra in EXTRAS if error.name in EXTRAS[extra]), None)
        if extra is None:
            raise
        sys.exit(
            f"{program}: found no package {error.name}, expected those of the extra {extra}: "
            f'pip install -e ".[{extra}]"'
        )
    except UnicodeEncodeError as error:
        sys.exit(
            f"{program}: found {one_line(error.object)!a}, expected what the locale's encoding, "
            f"{locale.getpreferredencoding()}, can express: set PYTHONUTF8=1"
        )
    except (OSError, ValueError, FloatingPointError, ImportError) as error:
        sys.exit(f"{program}: {one_line(error)}")


def one_line(error: Exception | str) -> str:
    """The message of an error, without the end of a long one."""
    message = " ".join(str(error).split()) or type(error).__name__
    return message if len(message) <= MAX_LENGTH else f"{message[:MAX_LENGTH]} ..."
