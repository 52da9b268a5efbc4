"""The lock of an output folder, in which one run trains at a time."""

import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from tqdm.auto import tqdm

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

LOCK = ".lock"
LOCKED_BYTE = 1 << 20  # on Windows nobody else can read it, so it lies beyond what is written

_descriptors: set[int] = set()  # of the locks that this process holds


class FolderInUseError(ValueError):
    """An output folder in which another process trains."""


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Holds the lock of a folder, which is made if need be; the death of the process releases it.

    Raises:
        FolderInUseError: another process holds it.
        OSError: the folder cannot be made or written to.
    """
    if not folder.is_dir():
        if folder.is_symlink():
            raise FileNotFoundError(f"{folder}: found a link that leads nowhere, expected a folder")
        if folder.exists():
            raise NotADirectoryError(f"{folder}: found a file, expected a folder")
        folder.mkdir(parents=True, exist_ok=True)
    path = folder / LOCK
    descriptor = _open_locked(path)
    _descriptors.add(descriptor)
    try:
        os.ftruncate(descriptor, 0)
        started = datetime.now().isoformat(" ", "seconds")
        os.write(
            descriptor, f"process {os.getpid()} on {socket.gethostname()} since {started}".encode()
        )
        yield
    finally:
        _descriptors.discard(descriptor)
        with suppress(OSError):  # Windows removes no open file
            path.unlink()
        os.close(descriptor)


def _open_locked(path: Path) -> int:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            _lock(descriptor)
        except (BlockingIOError, PermissionError):  # of POSIX, of Windows
            holder = os.read(descriptor, 1000).decode(errors="replace") or "another process"
            os.close(descriptor)
            raise FolderInUseError(
                f"{path.parent}: found {holder}, which trains there, expected none: wait for its "
                "end, or choose another --output_dir"
            ) from None
        except OSError as error:
            tqdm.write(f"{path.parent}: cannot be locked ({error}): start no other run there")
        if os.path.exists(path) and os.path.samestat(os.fstat(descriptor), os.stat(path)):
            return descriptor
        os.close(descriptor)  # its holder has removed it since


def _lock(descriptor: int) -> None:
    if sys.platform != "win32":
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    else:
        os.lseek(descriptor, LOCKED_BYTE, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        os.lseek(descriptor, 0, os.SEEK_SET)


def _close_in_child() -> None:
    """A process that loads data must not hold the lock of a run that is dead."""
    while _descriptors:
        os.close(_descriptors.pop())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_in_child)
