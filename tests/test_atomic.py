"""Files and folders are written whole or not at all, whatever ends the writing."""

from pathlib import Path

import pytest

from musicvae.atomic import discard_folder, unfinished, whole_file, whole_files, whole_folder


def contents(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): path.read_text()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture
def leftover(tmp_path) -> Path:
    """A folder that a killed process has left, as it was about to become `new`."""
    folder = unfinished(tmp_path / "new")
    folder.mkdir()
    (folder / "half").write_text("hal")
    return folder


def test_a_file_is_replaced_when_the_new_one_is_whole(tmp_path):
    path = tmp_path / "groove.txt"
    path.write_text("old")
    with whole_file(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert contents(tmp_path) == {"groove.txt": "new"}


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "groove.txt"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), whole_file(path) as temporary:
        temporary.write_text("ne")
        raise KeyboardInterrupt
    assert contents(tmp_path) == {"groove.txt": "old"}


@pytest.mark.parametrize("place", ["absent", "empty"])
def test_a_folder_appears_when_it_is_whole(place, leftover, tmp_path):
    new = tmp_path / "new"
    if place == "empty":
        new.mkdir()
    with whole_folder(new) as folder:
        assert list(folder.iterdir()) == []
        (folder / "config").write_text("new")
        assert not new.exists() or not any(new.iterdir())
    assert contents(tmp_path) == {"new/config": "new"}


@pytest.mark.parametrize("replace", [False, True])
def test_an_error_leaves_no_folder(replace, leftover, tmp_path):
    with pytest.raises(ZeroDivisionError), whole_folder(tmp_path / "new", replace) as folder:
        (folder / "config").write_text("ne")
        _ = 1 / 0
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_content_goes_only_where_that_is_asked_for(tmp_path):
    (tmp_path / "new").mkdir()
    (tmp_path / "new/mine").write_text("mine")
    with pytest.raises(OSError), whole_folder(tmp_path / "new") as folder:
        (folder / "config").write_text("new")
    assert contents(tmp_path) == {"new/mine": "mine"}
    with whole_folder(tmp_path / "new", replace=True) as folder:
        (folder / "config").write_text("new")
    assert contents(tmp_path) == {"new/config": "new"}


def test_files_are_moved_into_a_folder_whose_others_stay(leftover, tmp_path):
    (tmp_path / "config").write_text("old")
    (tmp_path / "notes").write_text("mine")
    with whole_files(tmp_path, "new") as folder:
        (folder / "samples").mkdir()
        (folder / "samples/1").write_text("new")
        (folder / "config").write_text("new")
        assert (tmp_path / "config").read_text() == "old"
    assert contents(tmp_path) == {"config": "new", "notes": "mine", "samples/1": "new"}


def test_a_link_to_a_folder_is_removed_and_not_the_folder(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/mine").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    discard_folder(tmp_path / "link")
    assert contents(tmp_path) == {"elsewhere/mine": "mine"}
    assert [path.name for path in tmp_path.iterdir()] == ["elsewhere"]
