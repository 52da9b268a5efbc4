"""The loopback Hub is a Hub to the real clients, which run in a process that knows no other."""

import hashlib
import itertools
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

import httpx2
import numpy as np
import pytest
from factories import random_model
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import (
    EntryNotFoundError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from loopback_hub import Client, Repository, asked, client_process

from modeling_musicvae import MusicVAEModel

FOLDER = {
    "README.md": b"---\nlicense: apache-2.0\n---\nDrums.\n",
    "config.json": b"{}",
    "model.safetensors": bytes(range(256)) * 2000,
    "runs/first/picture.png": b"\x89PNG\r\n\x1a\n\0\0",
    "empty.txt": b"",
}
LARGE = {"model.safetensors", "runs/first/picture.png"}
SHA256 = hashlib.sha256(FOLDER["model.safetensors"]).hexdigest()


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def client(running_hub, token, home) -> Iterator[Client]:
    with client_process(running_hub.environment(token, home)) as client:
        yield client


@pytest.fixture(scope="module")
def api(running_hub, token) -> HfApi:
    return HfApi(running_hub.url, token)


@pytest.fixture
def folder(tmp_path) -> Path:
    for name, data in FOLDER.items():
        path = tmp_path / "folder" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return tmp_path / "folder"


numbers = itertools.count()


@pytest.fixture
def repo(hub, client, api) -> Repository:
    """A new private one of Ann's."""
    id = f"ann/drums-{next(numbers)}"
    client(api.create_repo, id, private=True)
    return hub.repo(id)


@pytest.fixture
def upload(client, api, folder) -> Callable[..., str]:
    """Uploads the folder and returns the commit's id."""

    def upload(repo: Repository, **settings: Any) -> str:
        return client(api.upload_folder, repo_id=repo.id, folder_path=str(folder), **settings).oid

    return upload


@pytest.fixture
def commit(client, api) -> Callable[..., Any]:
    """Commits a text as a file, or other operations."""

    def commit(repo: Repository, text: str = "kick", *operations, api: HfApi = api, **settings):
        operations = operations or [CommitOperationAdd("a.txt", text.encode())]
        return client(api.create_commit, repo.id, operations, commit_message=text, **settings)

    return commit


# Accounts and repositories


@pytest.mark.parametrize("role", ["read", "write"])
def test_a_token_belongs_to_an_account_and_has_a_role(role, hub, client):
    account = client(HfApi(hub.url, hub.create_token("bob", role)).whoami)
    assert (account["name"], account["auth"]["accessToken"]["role"]) == ("bob", role)


def test_a_wrong_token_is_refused(hub, client, repo):
    stranger = HfApi(hub.url, "hf_wrong")
    with pytest.raises(HfHubHTTPError, match="Invalid user token"):
        client(stranger.whoami)
    with pytest.raises(HfHubHTTPError, match="Invalid credentials") as error:
        client(stranger.repo_info, repo.id)
    assert error.value.response.status_code == 401


@pytest.mark.parametrize("kind", ["model", "dataset"])
def test_a_repository_is_created_once_and_deleted(kind, hub, client, api):
    create = partial(client, api.create_repo, "ann/once", repo_type=kind)
    url = create()
    assert create(exist_ok=True) == url
    with pytest.raises(HfHubHTTPError, match="409"):
        create()
    assert client(api.repo_info, "ann/once", repo_type=kind).private is False
    client(api.delete_repo, "ann/once", repo_type=kind)
    with pytest.raises(RepositoryNotFoundError):
        client(api.repo_info, "ann/once", repo_type=kind)


@pytest.mark.parametrize("who", ["somebody else", "nobody"])
def test_a_private_repository_is_hidden_from_strangers(who, hub, client, upload, repo):
    upload(repo)
    stranger = HfApi(hub.url, hub.create_token("bob") if who == "somebody else" else False)
    for look in (stranger.repo_info, stranger.auth_check, stranger.list_repo_files):
        with pytest.raises(RepositoryNotFoundError):
            client(look, repo.id)
    with pytest.raises(RepositoryNotFoundError):
        client(stranger.hf_hub_download, repo.id, "config.json")


@pytest.mark.parametrize("user, role", [("ann", "read"), ("bob", "write")])
def test_who_may_only_read_cannot_write(user, role, hub, client, api, commit):
    client(api.create_repo, "ann/public", exist_ok=True)
    reader = HfApi(hub.url, hub.create_token(user, role))
    client(reader.auth_check, "ann/public")
    for write in (
        partial(client, reader.auth_check, "ann/public", write=True),
        partial(client, reader.create_repo, "ann/new"),
        partial(commit, hub.repo("ann/public"), api=reader),
    ):
        with pytest.raises(HfHubHTTPError, match="403"):
            write()
    assert hub.repo("ann/public").files() == {}


# Commits


def test_a_folder_is_uploaded_in_one_commit(hub, upload, repo):
    oid = upload(repo, commit_message="Train", commit_description="300 steps")
    commit, first = repo.history()
    assert (commit.id, commit.author) == (oid, "ann")
    assert (commit.title, commit.message) == ("Train", "300 steps")
    assert (repo.files(), first.files) == (FOLDER, {})
    assert {path for path, file in commit.files.items() if file.lfs} == LARGE
    assert asked(hub, "PUT", "/storage/") == len(LARGE)
    assert repo.objects[SHA256] == FOLDER["model.safetensors"]


def test_what_has_not_changed_is_not_committed_again(hub, upload, folder, repo):
    first = upload(repo)
    assert upload(repo) == first
    (folder / "config.json").write_text('{"bars": 2}')
    upload(repo, delete_patterns="runs/*")
    expected = FOLDER | {"config.json": b'{"bars": 2}'}
    assert repo.files() == expected
    assert len(repo.history()) == 3
    assert asked(hub, "PUT", "/storage/") == len(LARGE)


def test_a_large_file_that_is_not_what_its_sha256_says_is_refused(hub, commit, repo, tmp_path):
    (path := tmp_path / "model.safetensors").write_bytes(b"before")
    addition = CommitOperationAdd(path.name, path)
    assert addition.upload_info.sha256
    path.write_bytes(b"after!")
    with pytest.raises(RuntimeError, match="Error while uploading 'model.safetensors'"):
        commit(repo, "Train", addition)
    assert (repo.files(), repo.objects) == ({}, {})


def test_a_commit_is_made_whole_or_not_at_all(commit, repo):
    with pytest.raises(EntryNotFoundError):
        commit(repo, "x", CommitOperationAdd("b.txt", b"b"), CommitOperationDelete("missing.txt"))
    assert repo.files() == {}


def test_a_commit_on_a_stale_parent_is_refused(commit, repo):
    parent = repo.branches["main"]
    commit(repo, "kick", parent_commit=parent)
    with pytest.raises(HfHubHTTPError, match="412") as error:
        commit(repo, "snare", parent_commit=parent)
    assert error.value.response.status_code == 412
    assert repo.files() == {"a.txt": b"kick"}


def test_files_and_folders_are_deleted(client, api, upload, repo):
    upload(repo)
    client(api.delete_folder, "runs", repo.id)
    client(api.delete_file, "empty.txt", repo.id)
    assert repo.files().keys() == FOLDER.keys() - {"runs/first/picture.png", "empty.txt"}


@pytest.mark.parametrize("head", ["license: [", "- a list", "model-index: 3"])
def test_a_card_with_damaged_metadata_is_refused(head, commit, repo):
    with pytest.raises(ValueError):
        commit(repo, "Card", CommitOperationAdd("README.md", f"---\n{head}\n---\n".encode()))
    assert repo.files() == {}


# Revisions


def test_branches_tags_and_commits_are_revisions(client, api, commit, repo):
    first = commit(repo, "kick").oid
    client(api.create_tag, repo.id, tag="v1")
    client(api.create_branch, repo.id, branch="step/12", revision="v1")
    commit(repo, "snare", revision="step/12")
    second = commit(repo, "crash").oid
    for revision, text in {
        "main": "crash",
        "v1": "kick",
        "step/12": "snare",
        first: "kick",
        second: "crash",
    }.items():
        path = client(api.hf_hub_download, repo.id, "a.txt", revision=revision)
        assert Path(path).read_text() == text
        assert repo.files(revision) == {"a.txt": text.encode()}
    refs = client(api.list_repo_refs, repo.id)
    assert {ref.name: ref.target_commit for ref in refs.branches} == repo.branches
    assert {ref.name: ref.target_commit for ref in refs.tags} == repo.tags == {"v1": first}
    titles = [commit.title for commit in client(api.list_repo_commits, repo.id)]
    assert titles == ["crash", "kick", "initial commit"]


def test_a_name_is_given_once_and_can_be_taken_back(client, api, repo):
    create = [partial(client, api.create_tag, repo.id, tag="v1")]
    create += [partial(client, api.create_branch, repo.id, branch="step")]
    for ref in create:
        ref()
        ref(exist_ok=True)
        with pytest.raises(HfHubHTTPError, match="409"):
            ref()
    client(api.delete_tag, repo.id, tag="v1")
    client(api.delete_branch, repo.id, branch="step")
    assert (repo.tags, repo.branches.keys()) == ({}, {"main"})


def test_what_is_not_there_is_named(client, api, commit, repo):
    commit(repo)
    with pytest.raises(RevisionNotFoundError):
        client(api.repo_info, repo.id, revision="v2")
    with pytest.raises(RevisionNotFoundError):
        commit(repo, revision="v2")
    with pytest.raises(EntryNotFoundError):
        client(api.hf_hub_download, repo.id, "b.txt")
    with pytest.raises(RepositoryNotFoundError):
        client(api.hf_hub_download, "drums", "a.txt")


# Listing and download


def test_a_tree_is_listed_in_pages(hub, client, api, upload, repo):
    upload(repo)
    assert client(api.list_repo_files, repo.id) == sorted(FOLDER)
    assert asked(hub, "GET", "/tree/") == 4  # five files and two folders, two a page


def test_infos_show_what_is_stored(client, api, upload, repo):
    oid = upload(repo)
    info = client(api.model_info, repo.id, files_metadata=True)
    assert (info.sha, info.private, info.card_data.license) == (oid, True, "apache-2.0")
    assert {file.rfilename: file.size for file in info.siblings} == {
        path: len(data) for path, data in FOLDER.items()
    }
    model, runs = client(api.get_paths_info, repo.id, ["model.safetensors", "runs", "absent"])
    assert (model.lfs.sha256, model.size, runs.path) == (SHA256, 512_000, "runs")


def test_a_snapshot_is_the_folder(client, api, upload, repo):
    upload(repo)
    snapshot = Path(client(api.snapshot_download, repo.id))
    files = [path for path in snapshot.rglob("*") if path.is_file()]
    assert {path.relative_to(snapshot).as_posix(): path.read_bytes() for path in files} == FOLDER


def weights(*args: Any, **kwargs: Any) -> dict[str, np.ndarray]:
    """Those of a pretrained model, in the process of the client."""
    state = MusicVAEModel.from_pretrained(*args, **kwargs).state_dict()
    return {name: tensor.numpy() for name, tensor in state.items()}


@pytest.mark.slow
def test_a_model_is_loaded_at_a_revision_and_then_offline(
    hub, client, api, token, home, repo, tmp_path
):
    models = {"v1": random_model(), "main": random_model(decoder="flat")}
    for tag, model in models.items():
        model.save_pretrained(tmp_path / tag)
        client(api.upload_folder, repo_id=repo.id, folder_path=str(tmp_path / tag))
        if tag == "v1":
            client(api.create_tag, repo.id, tag=tag)
    expected = {tag: weights(tmp_path / tag) for tag in models}
    for tag in models:
        np.testing.assert_equal(client(weights, repo.id, revision=tag), expected[tag])
    hub.requests.clear()
    with client_process(hub.environment(token, home) | {"HF_HUB_OFFLINE": "1"}) as offline:
        for tag in models:
            np.testing.assert_equal(offline(weights, repo.id, revision=tag), expected[tag])
        with pytest.raises(OSError, match="offline|connect|cache"):
            offline(weights, "ann/never-seen")
    assert hub.requests == []


ROWS = [{"step": 0, "drum": "kick"}, {"step": 4, "drum": "snare"}]


def push_and_load(id: str, **settings: Any) -> list[dict[str, Any]]:
    """Pushes a dataset and loads it again, in the process of the client."""
    from datasets import Dataset, load_dataset

    Dataset.from_list(ROWS).push_to_hub(id)
    return list(load_dataset(id, split="train", **settings))


@pytest.mark.parametrize("streaming", [False, True])
def test_a_dataset_is_pushed_and_loaded(streaming, hub, client):
    id = f"ann/grooves-{next(numbers)}"
    assert client(push_and_load, id, streaming=streaming) == ROWS
    assert "data/train-00000-of-00001.parquet" in hub.repo(id, "datasets").files()


@pytest.fixture
def fetch(hub) -> Callable[..., Any]:
    """Asks the Hub without its client."""

    def fetch(url: str, **headers: str) -> Any:
        return build_opener(ProxyHandler({})).open(Request(url, headers=headers), timeout=10)

    return fetch


def test_a_range_of_bytes_is_answered(hub, token, repo, commit, fetch):
    commit(repo, "hi-hat")
    url = f"{hub.url}/{repo.id}/resolve/main/a.txt"
    for span, expected in {"2-": b"-hat", "1-3": b"i-h"}.items():
        answer = fetch(url, Range=f"bytes={span}", Authorization=f"Bearer {token}")
        assert (answer.status, answer.read()) == (206, expected)
    with pytest.raises(HTTPError, match="416"):
        fetch(url, Range="bytes=6-", Authorization=f"Bearer {token}")


def test_the_storage_of_large_files_takes_no_token(hub, token, repo, upload, fetch):
    upload(repo)
    url = f"{hub.url}/storage/models/{repo.id}/{SHA256}"
    assert fetch(url).read() == FOLDER["model.safetensors"]
    with pytest.raises(HTTPError, match="400"):
        fetch(url, Authorization=f"Bearer {token}")


# Faults


@pytest.mark.parametrize("fault", [429, 503, "drop"])
def test_the_upload_of_a_large_file_is_tried_again(fault, hub, upload, repo):
    hub.fail("PUT", SHA256, fault, times=1)
    upload(repo)
    assert repo.files() == FOLDER
    assert asked(hub, "PUT", SHA256) == 2


@pytest.mark.parametrize("status", [401, 403, 404, 412, 429, 500, 503])
def test_a_commit_that_fails_is_not_tried_again(status, hub, commit, repo):
    hub.fail("POST", "/commit/", status)
    with pytest.raises(HfHubHTTPError) as error:
        commit(repo)
    assert error.value.response.status_code == status
    assert asked(hub, "POST", "/commit/") == 1
    assert repo.files() == {}
    hub.heal()
    commit(repo)
    assert repo.files() == {"a.txt": b"kick"}


def test_a_commit_that_is_cut_off_is_not_made(hub, commit, repo):
    hub.fail("POST", "/commit/", "drop", times=1)
    with pytest.raises(httpx2.TransportError):
        commit(repo)
    assert asked(hub, "POST", "/commit/") == 1
    assert repo.files() == {}


def test_a_download_that_is_cut_off_goes_on_where_it_was(hub, client, api, upload, repo):
    upload(repo)
    hub.fail("GET", "/storage/", "drop", times=1)
    path = client(api.hf_hub_download, repo.id, "model.safetensors")
    assert Path(path).read_bytes() == FOLDER["model.safetensors"]
    assert asked(hub, "GET", "/storage/") == 2


def test_a_slow_answer_is_waited_for_unless_the_file_is_cached(hub, client, api, commit, repo):
    commit(repo)
    hub.fail("HEAD", "/resolve/", "slow", seconds=1)
    for requests in (2, 3):  # one that is given up, a patient one; one that is given up
        path = client(api.hf_hub_download, repo.id, "a.txt", etag_timeout=0.1)
        assert Path(path).read_text() == "kick"
        assert asked(hub, "HEAD", "/resolve/") == requests


@pytest.mark.parametrize("fault", [500, "drop"])
def test_a_hub_that_is_down_comes_up_again(fault, hub, client, api, repo):
    hub.fail(".*", "", fault)
    with pytest.raises((HfHubHTTPError, httpx2.TransportError)):
        client(api.repo_info, repo.id)
    with pytest.raises((HfHubHTTPError, httpx2.TransportError)):
        client(api.create_repo, "ann/new")
    hub.heal()
    assert client(api.repo_info, repo.id).sha == repo.branches["main"]


def test_faults_disturb_only_what_they_name(hub, commit, repo):
    hub.fail("GET", "/commit/", 500)
    hub.fail("POST", "/ann/another/", 500)
    commit(repo)
    assert repo.files() == {"a.txt": b"kick"}


def test_the_log_holds_methods_and_paths_but_no_token(hub, client, api, token, repo):
    client(api.whoami)
    assert ("GET", "/api/whoami-v2") in hub.requests
    assert token not in repr(hub.requests)
