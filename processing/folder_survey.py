"""A folder of MIDI files before it becomes a dataset: which can be used, and what is in doubt."""

import hashlib
import json
import os
from collections.abc import Iterable
from typing import NamedTuple

from .counted import counted
from .errors import MidiError, MidiLengthError
from .midi_processor import MidiProcessor
from .regular_files import write_file
from .training_windows import TrainingWindows

MIDI_SUFFIXES = (".mid", ".midi", ".kar", ".smf", ".rmi")
NUM_EXAMPLES = 3


class Finding(NamedTuple):
    """Something about a file that a user has to know.

    Attributes:
        reason: the same words for the same reason in every file.
        file: its name in the folder.
        text: what it is in this file.
        is_left_out: whether the file is not used at all.
    """

    reason: str
    file: str
    text: str
    is_left_out: bool


class Survey(NamedTuple):
    """The MIDI files of a folder.

    Attributes:
        contents: for each file that can be used a digest of its drums, in the order of names.
        findings: of the others, and of notes that are left out of these.
    """

    contents: dict[str, str]
    findings: list[Finding]


def find_files(folder: str, suffixes: tuple[str, ...]) -> tuple[list[str], list[str]]:
    """Files by suffix in a folder, its subfolders and those that are linked into it.

    Hidden files are passed over, and so are folders that were met before: a link to a folder above
    it would have no end.

    Returns:
        The names of the files, and of the links that lead where another way has led, relative to
        the folder, with slashes, in the order of their parts.
    """
    files, repeated, met = [], [], set()
    for parent, subfolders, names in os.walk(folder, followlinks=True):
        status = os.stat(parent)
        relative = os.path.relpath(parent, folder)
        if (status.st_dev, status.st_ino) in met:
            repeated.append(relative)
            subfolders.clear()
            continue
        met.add((status.st_dev, status.st_ino))
        subfolders.sort()
        files += [
            os.path.normpath(os.path.join(relative, name)).replace(os.sep, "/")
            for name in names
            if name.lower().endswith(suffixes)
            and not name.startswith(".")
            and os.path.exists(os.path.join(parent, name))
        ]
    return sorted(files, key=lambda name: name.split("/")), sorted(repeated)


def survey_folder(folder: str, processor: MidiProcessor) -> Survey:
    """Reads all MIDI files of a folder."""
    names, repeated = find_files(folder, MIDI_SUFFIXES)
    contents = {}
    findings = [
        Finding("a link to a folder that is read already", name, "not followed", False)
        for name in repeated
    ]
    for name in names:
        try:
            windows = read_windows(os.path.join(folder, name), processor)
        except (MidiError, OSError) as error:
            findings.append(Finding(_reason(error), name, str(error), True))
            continue
        digest = hashlib.sha256(windows.piano_roll.tobytes() + windows.timing.tobytes())
        contents[name] = digest.hexdigest()
        findings += [Finding(r.kind, name, r.text, False) for r in windows.remarks]
    return Survey(contents, findings)


def read_windows(path: str, processor: MidiProcessor) -> TrainingWindows:
    """The windows of a file, at least one.

    Raises:
        MidiError: the file cannot be used, or is shorter than a window.
        OSError: the file cannot be read.
    """
    windows = processor.training_windows(path)
    if not len(windows.piano_roll):
        raise MidiLengthError(
            f"{path}: {counted(windows.num_bars, 'bar')}, shorter than a window of {processor.bars}"
        )
    return windows


def write_log(path: str, findings: Iterable[Finding]) -> None:
    """Writes one JSON object a line, by reason and file."""
    lines = [json.dumps(finding._asdict()) + "\n" for finding in sorted(findings)]
    write_file(path, "".join(lines).encode())


def read_log(path: str) -> list[Finding]:
    """The findings that `write_log` wrote; none where there is no such file."""
    if not os.path.exists(path):
        return []
    with open(path, encoding="utf-8") as file:
        return [Finding(**json.loads(line)) for line in file]


def summary(findings: list[Finding]) -> str:
    """One line a reason, with how many files and notes it concerns and three examples."""
    files: dict[tuple[bool, str], list[str]] = {}
    for finding in findings:
        files.setdefault((not finding.is_left_out, finding.reason), []).append(finding.file)
    lines = []
    order = sorted(files.items(), key=lambda item: (item[0][0], -len(item[1]), item[0]))
    for (is_used, reason), names in order:
        more = ", ..." if len(names) > NUM_EXAMPLES else ""
        kind = "read, but" if is_used else "left out"
        lines.append(f"  {len(names)} {kind}: {reason}: {', '.join(names[:NUM_EXAMPLES])}{more}")
    return "\n".join(lines)


def _reason(error: Exception) -> str:
    if isinstance(error, MidiError):
        return (type(error).__doc__ or "").splitlines()[0].rstrip(".")
    return type(error).__name__
