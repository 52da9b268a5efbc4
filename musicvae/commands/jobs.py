"""The MIDI files that a command line names, and where their results go."""

import glob
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

RESULT_SUFFIXES = (".mid", ".wav", ".png")


class Job(NamedTuple):
    """One result.

    Attributes:
        sources: the files that it is made of.
        stem: the path of the result, to which a suffix is added.
    """

    sources: list[Path]
    stem: Path

    def result(self, suffix: str) -> Path:
        return self.stem.with_name(self.stem.name + suffix)


def one_job(words: Sequence[str], folder: Path, verb: str, others: Sequence[str] = ()) -> list[Job]:
    """The job that makes one result of all files; see `jobs`."""
    sources = [Path(word) for word in words]
    name = "-".join([*(source.stem for source in sources), verb])
    job = Job(sources, folder / name)
    _check(job, _resolved(sources + list(map(Path, others))))
    return [job]


def jobs(words: Iterable[str], folder: Path, verb: str, others: Sequence[str] = ()) -> list[Job]:
    """A job for each file; none writes to a file that is read, or that another job writes.

    Args:
        words: files, folders and patterns; a folder's structure is kept in the results'.
        folder: for the results.
        verb: for their names.
        others: files that are read besides.

    Raises:
        FileNotFoundError: a folder has no MIDI file.
        FileExistsError: a result would replace a file that is read.
    """
    found: dict[Path, tuple[Path, Path]] = {}
    for source, place in (pair for word in words for pair in _files(word)):
        found.setdefault(source.resolve(), (source, place))
    read = {*found, *_resolved(map(Path, others))}
    taken, result = set[Path](), []
    for source, place in found.values():
        job = _free([source], folder / place.with_name(f"{place.stem}-{verb}"), taken)
        _check(job, read)
        taken |= _resolved(map(job.result, RESULT_SUFFIXES))
        result.append(job)
    return result


def _check(job: Job, read: set[Path]) -> None:
    """Refuses a job with a result that is among the files to read."""
    for suffix in RESULT_SUFFIXES:
        if job.result(suffix).resolve() in read:
            raise FileExistsError(
                f"output_dir: found {job.result(suffix)}, a file to read, where the result of "
                f"{' and '.join(map(str, job.sources))} goes: expected another folder"
            )


def _files(word: str) -> list[tuple[Path, Path]]:
    """Each file with its place among the results."""
    from processing.folder_survey import MIDI_SUFFIXES, find_files

    if os.path.isdir(word):
        names, _ = find_files(word, MIDI_SUFFIXES)
        if not names:
            raise FileNotFoundError(
                f"{word}: found no MIDI file, expected some with {', '.join(MIDI_SUFFIXES)}"
            )
        return [(Path(word, name), Path(name)) for name in names]
    # A word that matches nothing is reported when it is read.
    matches = [word] if os.path.lexists(word) else sorted(glob.glob(word, recursive=True)) or [word]
    return [(Path(match), Path(Path(match).name)) for match in matches]


def _free(sources: list[Path], stem: Path, taken: set[Path]) -> Job:
    """The job whose results take no path that is taken; a number is added to its name if needed."""
    job, number = Job(sources, stem), 1
    while _resolved(map(job.result, RESULT_SUFFIXES)) & taken:
        number += 1
        job = Job(sources, stem.with_name(f"{stem.name}-{number}"))
    return job


def _resolved(paths: Iterable[Path]) -> set[Path]:
    return {path.resolve() for path in paths}
