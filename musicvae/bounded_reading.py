"""Bytes of files and addresses, within bounds of size and time."""

import threading
import time
import urllib.request
from collections.abc import Callable
from http.client import HTTPException
from typing import BinaryIO, TypeVar

from processing.regular_files import check_regular_file

from .retrying import retry

PIECE_BYTES = 1 << 20
ATTEMPTS = 3
# Seconds that a server may take for its answer, and bytes that it must send in each of them.
PATIENCE, SLOWEST = 30.0, 50_000

Result = TypeVar("Result")


class ReadingError(OSError):
    """A file or an address that cannot be read, or that has too many bytes."""


def is_address(place: str) -> bool:
    return place.startswith(("http://", "https://"))


def read_bounded(place: str, max_bytes: int) -> bytes:
    """All bytes of a regular file or an http(s) address.

    An address is asked again where line or server fail, not where the server refuses, and given up
    after a time that follows from `max_bytes`, whatever the server does.

    Raises:
        ReadingError: it cannot be read, or has more bytes; the message begins with `place`.
    """
    try:
        data = download(place, max_bytes) if is_address(place) else read_file(place, max_bytes)
    except (OSError, HTTPException, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error).removeprefix(f"{place}: ")
        raise ReadingError(f"{place}: {reason:.200}") from error
    if len(data) > max_bytes:
        raise ReadingError(f"{place}: found more bytes, expected at most {max_bytes}")
    return data


def read_file(path: str, max_bytes: int) -> bytes:
    if check_regular_file(path).st_size > max_bytes:
        raise ReadingError(f"{path}: found more bytes, expected at most {max_bytes}")
    with open(path, "rb") as file:
        return read_pieces(file, max_bytes + 1)


def download(url: str, max_bytes: int) -> bytes:
    seconds = PATIENCE + max_bytes / SLOWEST
    deadline = time.monotonic() + seconds

    def read() -> bytes:
        with urllib.request.urlopen(url, timeout=PATIENCE) as response:
            length = response.headers.get("Content-Length", "")
            if length.isdecimal() and int(length[:20]) > max_bytes:
                raise ValueError(f"found {length:.20} bytes, expected at most {max_bytes}")
            return read_pieces(response, max_bytes + 1)

    def is_transient(error: Exception) -> bool:
        failed = isinstance(error, (OSError, HTTPException)) and time.monotonic() < deadline
        return failed and getattr(error, "code", 500) >= 500

    return within(seconds, lambda: retry(read, is_transient, ATTEMPTS))


def read_pieces(stream: BinaryIO, max_bytes: int) -> bytes:
    """Reads as `stream.read(max_bytes)`, which would take memory for all that may be asked for."""
    data = bytearray()
    while piece := stream.read(min(max_bytes - len(data), PIECE_BYTES)):
        data += piece
    return bytes(data)


def within(seconds: float, action: Callable[[], Result]) -> Result:
    """The result of `action`, or its error.

    It runs in a thread, for a server that sends a byte now and then keeps every timeout of a socket
    from passing.

    Raises:
        TimeoutError: it takes longer; its thread is left to itself, and ends with the process.
    """
    results: list[Result] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(action())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if errors:
        raise errors[0]
    if not results:
        raise TimeoutError(f"the server has not sent it within {seconds:.0f} s")
    return results[0]
