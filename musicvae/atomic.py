"""Files and folders that are written whole or not at all.

While one is written it is next to its place, under a hidden name that follows from that place. So
what a killed process leaves is found again: whoever writes there next removes it.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from processing.counted import counted

UNFINISHED = ".tmp"  # how the hidden name ends


def unfinished(path: Path) -> Path:
    """The path of a file or folder while it is written."""
    return path.with_name(f".{path.name}{UNFINISHED}")


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A path to write to, which replaces `path` if no error ends the block."""
    temporary = unfinished(path)
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def replaced(*paths: Path) -> str:
    """The end of a line about files, before they are written: how many are there already."""
    number = sum(path.is_file() for path in paths)
    return f", {counted(number, 'file')} replaced" if number else ""


def write_text(path: Path, text: str) -> None:
    """Writes a file in UTF-8."""
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextmanager
def whole_folder(path: Path, replace: bool = False) -> Iterator[Path]:
    """A new folder to fill, which becomes `path` if no error ends the block.

    Args:
        path: its place, which is absent or an empty folder.
        replace: whether `path` may be a folder with content, which goes when the new one is whole.

    Raises:
        OSError: something else is at the place.
    """
    temporary = unfinished(path)
    remove_folder(temporary)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        put_in_place(temporary, path, replace)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def whole_files(path: Path, name: str) -> Iterator[Path]:
    """A new folder to fill, whose files are moved into `path` if no error ends the block.

    Each file is moved in one rename, those at the top last, in the order of their names.

    Args:
        path: a folder; its other files stay.
        name: of what is written; the folder to fill is next to a file of that name in `path`.
    """
    temporary = unfinished(path / name)
    remove_folder(temporary)
    temporary.mkdir()
    try:
        yield temporary
        files = [file for file in temporary.rglob("*") if file.is_file()]
        for file in sorted(files, key=lambda file: (file.parent == temporary, file)):
            place = path / file.relative_to(temporary)
            place.parent.mkdir(parents=True, exist_ok=True)
            file.replace(place)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def put_in_place(temporary: Path, path: Path, replace: bool = False) -> None:
    """Makes a finished folder, once it is on the disk, the folder `path`; see `whole_folder`."""
    synchronize(*temporary.rglob("*"), temporary)
    if path.exists():
        if replace:
            discard_folder(path)
        else:
            path.rmdir()  # fails unless it is empty
    temporary.rename(path)
    synchronize(path.parent)


def discard_folder(path: Path) -> None:
    """Removes a folder such that what a kill leaves of it is not taken for whole."""
    doomed = unfinished(path.with_name(f"{path.name}.old"))
    remove_folder(doomed)
    path.rename(doomed)
    remove_folder(doomed)


def remove_folder(path: Path) -> None:
    """Removes a folder if there is one, or a link to one, but not what the link leads to."""
    if path.is_symlink():
        path.unlink()
    elif path.is_dir():
        shutil.rmtree(path)


def synchronize(*paths: Path) -> None:
    """Waits until files and folders are on the disk, so that nothing later overtakes them."""
    for path in paths:
        if path.is_file() or os.name == "posix":  # elsewhere folders cannot be opened
            descriptor = os.open(path, os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)
