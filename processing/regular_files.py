"""Files read without waiting for a pipe or filling the memory, and written whole or not at all."""

import os
import stat
import tempfile

from .errors import NotAFileError


def check_regular_file(path: str | os.PathLike) -> os.stat_result:
    """The file's status.

    Raises:
        NotAFileError: the path is a folder, a device, a pipe or a socket.
        OSError: there is nothing at the path, or it may not be asked for.
    """
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        raise NotAFileError(f"{os.fspath(path)}: found no regular file, expected one")
    return status


def read_regular_file(path: str | os.PathLike, max_bytes: int) -> bytes:
    """A file's content; of one longer than `max_bytes`, one byte more than these.

    Raises:
        NotAFileError, OSError: see `check_regular_file`.
    """
    check_regular_file(path)
    with open(path, "rb") as file:
        return file.read(max_bytes + 1)


def write_file(path: str | os.PathLike, data: bytes) -> None:
    """Writes a file at once, so that no other process sees half of it and an error leaves none."""
    folder, name = os.path.split(os.fspath(path))
    handle, temporary = tempfile.mkstemp(prefix=f".{name}-", dir=folder or ".")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)  # mkstemp lets only the owner read
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
