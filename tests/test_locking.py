"""One run trains in an output folder at a time."""

import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from musicvae.training.locking import LOCK, FolderInUseError, locked


def hold(folder: Path, ready: Connection, with_worker: bool) -> None:
    """Holds the lock for ever, also while a worker that was forked from it lives."""
    with locked(folder):
        worker = os.fork() if with_worker else 0
        if worker or not with_worker:
            ready.send(worker)
        time.sleep(1000)


@pytest.fixture(params=[False, True], ids=["alone", "with a worker"])
def holder(request, tmp_path) -> Iterator[multiprocessing.Process]:
    ready, sender = multiprocessing.Pipe()
    context = multiprocessing.get_context("fork")
    process = context.Process(target=hold, args=(tmp_path, sender, request.param))
    process.start()
    worker = ready.recv()
    yield process
    process.kill()
    process.join()
    if worker:
        os.kill(worker, signal.SIGKILL)


def test_a_folder_is_locked_once_and_then_anew(tmp_path):
    folder = tmp_path / "runs/first"
    for _ in range(2):
        with locked(folder):
            with pytest.raises(FolderInUseError, match=f"^{folder}: found process {os.getpid()} "):
                locked(folder).__enter__()
            assert [path.name for path in folder.iterdir()] == [LOCK]
        assert list(folder.iterdir()) == []


def test_a_second_run_is_refused_before_it_does_anything(train, tmp_path):
    with locked(tmp_path):
        with pytest.raises(FolderInUseError, match="which trains there, expected none: wait for"):
            train(tmp_path, max_steps=2)
        assert [path.name for path in tmp_path.iterdir()] == [LOCK]


def test_the_death_of_its_holder_releases_it(holder, tmp_path):
    with pytest.raises(FolderInUseError, match=f": found process {holder.pid} on .* since 20"):
        locked(tmp_path).__enter__()
    holder.kill()
    holder.join()
    with locked(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_a_link_leads_to_is_locked(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "folder")
    with locked(tmp_path / "link"), pytest.raises(FolderInUseError):
        locked(tmp_path / "folder").__enter__()


@pytest.mark.parametrize(
    ("kind", "message"), [("link", "a link that leads nowhere"), ("file", "a file")]
)
def test_an_output_folder_that_is_none_is_named(kind, message, train, tmp_path):
    place = tmp_path / "output"
    if kind == "link":
        place.symlink_to(tmp_path / "nowhere")
    else:
        place.write_text("mine")
    with pytest.raises(OSError, match=f"^{place}: found {message}, expected a folder"):
        train(place, max_steps=2)
