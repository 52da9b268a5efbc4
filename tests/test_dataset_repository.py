"""Groove's windows are pushed to the Hub as a dataset, and come back as they were made.

What pushes and loads runs in a process that knows no Hub but the one on the loopback interface.
"""

import functools
import os
import re
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Features
from huggingface_hub import DatasetCard
from loopback_hub import Repository, asked

from musicvae.data.dataset_repository import NUM_SHARDS, push_groove
from musicvae.hub import RepositoryError
from processing import GrooveMIDI
from processing.groove_midi import SPLITS


@pytest.fixture(scope="module")
def push(client, demo_grooves) -> Callable[..., str]:
    def push(repository: str, **settings: Any) -> str:
        return client(push_groove, repository, str(demo_grooves), **settings)

    return push


@pytest.fixture(scope="module")
def pushed(running_hub, push) -> Repository:
    """Four bars, and then two bars, as a user without thought of other settings pushes them."""
    for bars in (4, 2):
        push("ann/grooves", bars=bars)
    return running_hub.repo("ann/grooves", "datasets")


@pytest.fixture(scope="module")
def made(demo_grooves, tmp_path_factory) -> Callable[..., Any]:
    """The builder's output."""

    @functools.cache
    def made(**settings: Any) -> Any:
        cache = tmp_path_factory.mktemp("cache")
        groove = GrooveMIDI(data_dir=demo_grooves, cache_dir=cache, **settings)
        groove.download_and_prepare()
        return groove.as_dataset()

    return made


# Each split's features, and of each column dtype, shape and bytes.
Content = dict[str, tuple[Features, dict[str, tuple[np.dtype, tuple[int, ...], bytes]]]]


def content(windows: Any) -> Content:
    """Of a cached or streamed dataset."""
    found = {}
    for split in windows:
        rows = list(windows[split].with_format("numpy"))
        columns = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
        found[split] = (
            windows[split].features,
            {name: (c.dtype, c.shape, c.tobytes()) for name, c in columns.items()},
        )
    return found


def load(*args: Any, **settings: Any) -> Content:
    """The dataset as a client loads it, in its process."""
    from datasets import load_dataset

    return content(load_dataset(*args, **settings))


def start_bars(found: Content) -> dict[str, list[int]]:
    columns = {split: columns["start_bar"] for split, (_, columns) in found.items()}
    return {split: np.frombuffer(data, type).tolist() for split, (type, _, data) in columns.items()}


def parquet_files(repository: Repository, name: str) -> dict[str, bytes]:
    files = repository.files().items()
    return {path: data for path, data in files if path.startswith(f"{name}/")}


def card(repository: Repository) -> DatasetCard:
    return DatasetCard(repository.files()["README.md"].decode())


# What comes back


@pytest.mark.parametrize(
    ("bars", "streaming"),
    [
        pytest.param(4, False, id="4 bars"),
        pytest.param(4, True, id="4 bars, streaming"),
        pytest.param(2, False, id="2 bars"),
    ],
)
def test_windows_come_back_bit_for_bit_and_in_order(pushed, client, made, bars, streaming):
    assert client(load, pushed.id, f"{bars}bar", streaming=streaming) == content(made(bars=bars))


def test_training_windows_are_in_several_files_of_which_all_have_some(pushed, made):
    names = [f"4bar/train-{i:05}-of-{NUM_SHARDS:05}.parquet" for i in range(NUM_SHARDS)]
    names += [f"4bar/{split}-00000-of-00001.parquet" for split in SPLITS[1:]]
    assert sorted(parquet_files(pushed, "4bar")) == sorted(names)


def test_few_windows_and_no_validation_split_come_back_too(hub, client, write_drums, tmp_path):
    rows = [("drummer1/1_rock.mid", "train", 6), ("drummer1/2_rock.mid", "test", 4)]
    for name, _, bars in rows:
        write_drums(tmp_path / name, bars)
    lines = [f"{name},90,rock,drummer1,beat,4-4,{split}" for name, split, _ in rows]
    columns = "midi_filename,bpm,style,drummer,beat_type,time_signature,split"
    (tmp_path / "info.csv").write_text("\n".join([columns, *lines]))
    client(push_groove, "ann/few", str(tmp_path))
    few = client(load, "ann/few", "4bar")
    assert start_bars(few) == {"train": [0, 1, 2], "test": [0]}
    assert "| 4bar | 4 | 1 | 3 | 0 | 1 |" in card(hub.repo("ann/few", "datasets")).text


# One repository, several configurations


def test_another_configuration_leaves_the_first_as_it_is(pushed):
    _, two_bars, _, four_bars, _ = pushed.history()
    for path, file in four_bars.files.items():
        if path != "README.md":
            assert two_bars.files[path] == file
    before, after = (
        DatasetCard(commit.files["README.md"].data.decode()).data
        for commit in (four_bars, two_bars)
    )
    assert before.dataset_info in after.dataset_info
    assert before.configs[0] in after.configs
    assert {info["config_name"] for info in after.dataset_info} == {"4bar", "2bar"}


@pytest.mark.slow
def test_a_configuration_that_is_pushed_again_is_replaced(hub, push, client, made):
    for hop_bars in (1, 4):
        push("ann/replaced", hop_bars=hop_bars)
    repository = hub.repo("ann/replaced", "datasets")
    assert client(load, repository.id, "4bar") == content(made(hop_bars=4))
    assert len(parquet_files(repository, "4bar")) == NUM_SHARDS + 2
    assert card(repository).data.hop_bars == {"4bar": 4}


# The card


def test_the_card_has_what_the_hub_reads(pushed):
    data = card(pushed).data
    assert (data.license, data.tags) == ("cc-by-4.0", ["music", "drums", "midi"])
    assert data.pretty_name == "Groove MIDI Dataset in windows of whole bars"
    assert data.task_categories is None
    assert [config["config_name"] for config in data.configs] == ["2bar", "4bar"]
    assert [info["config_name"] for info in data.dataset_info] == ["2bar", "4bar"]


def test_the_card_counts_the_windows_of_each_configuration(pushed, made):
    text = card(pushed).text
    for bars in (2, 4):
        sizes = " | ".join(f"{rows:,}" for rows in made(bars=bars).num_rows.values())
        assert f"\n| {bars}bar | {bars} | 1 | {sizes} |\n" in text


def test_the_card_names_columns_attribution_and_citation(pushed):
    text = card(pushed).text
    for column in GrooveMIDI().info.features:
        assert f"| `{column}` |" in text
    for phrase in (GrooveMIDI().info.homepage, GrooveMIDI().info.citation, "Google LLC"):
        assert phrase in text
    assert text.startswith(f"\n# {card(pushed).data.pretty_name}\n")


def run_python(code: str) -> int:
    """The number of training windows that it loads, in the process of the client."""
    names: dict[str, Any] = {}
    exec(code, names)
    return len(names["train"])


def test_the_code_of_the_card_runs(pushed, client, made):
    (code,) = re.findall(r"```python\n(.*?)```", card(pushed).text, re.DOTALL)
    assert client(run_python, code) == len(made(bars=4)["train"])


@pytest.mark.parametrize(
    ("name", "added"),
    [
        pytest.param("ann/grooves", "", id="four bars"),
        pytest.param("ann/two-bars", " --bars 2", id="two bars alone"),
    ],
)
def test_the_card_says_how_to_train_on_it(hub, push, pushed, name, added):
    if name != pushed.id:
        push(name, bars=2)
    text = card(hub.repo(name, "datasets")).text
    (commands,) = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
    command = "accelerate launch train_accelerate.py --config recipes/groove_4bar.yaml"
    command += f" --data {name}{added}"
    assert commands.splitlines() == [command, f"{command} --streaming true"]


# Access


def test_a_repository_is_private_where_that_is_asked_for(hub, push):
    assert push("grooves-of-mine", private=True) == f"{hub.url}/datasets/ann/grooves-of-mine"
    assert hub.repo("ann/grooves-of-mine", "datasets").private


def test_a_public_repository_is_not_taken_for_a_private_one(pushed, push):
    head = pushed.find("main").id
    with pytest.raises(RepositoryError, match="found a public .*, expected a private one"):
        push(pushed.id, private=True)
    assert pushed.find("main").id == head


def failed_push(token: str, *args: Any, **settings: Any) -> str:
    """The traceback of a push with another token, in the process of the client."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_TOKEN", token)
        try:
            push_groove(*args, **settings)
        except RepositoryError:
            return traceback.format_exc()
    return ""


@pytest.mark.parametrize(
    ("user", "role", "repository", "message"),
    [
        pytest.param("ann", "read", "ann/new", "403 .*: use a token that may write", id="reader"),
        pytest.param("ann", "read", "ann/grooves", "403 .*: use a token", id="reader of it"),
        pytest.param("bob", "write", "ann/grooves", "403 .*choose another", id="somebody else"),
        pytest.param(None, "hf_wrong", "ann/new", "401 .*: log in by", id="wrong token"),
        pytest.param(None, "", "ann/new", "401 .*: log in by", id="no token"),
        pytest.param(None, "hf_\u00e9", "ann/new", "the token has .*: log in by", id="no ASCII"),
        pytest.param("ann", "write", "a/b/c", "Repo id must be", id="bad name"),
    ],
)
def test_access_is_checked_before_windows_are_made(
    hub, pushed, client, environment, demo_grooves, user, role, repository, message
):
    token = hub.create_token(user, role) if user else role
    shown = client(failed_push, token, repository, str(demo_grooves), bars=3)
    assert re.search(f"RepositoryError: {repository}: .*{message}", shown)
    assert not (token and token in shown)
    assert list(Path(environment["HF_DATASETS_CACHE"]).rglob("3bar*")) == []


@pytest.mark.parametrize("fault", [500, 503, "drop"])
def test_a_hub_that_is_down_is_reported_at_once(fault, hub, push):
    hub.fail(".*", "", fault)
    with pytest.raises(RepositoryError, match="^ann/down: .*: try again later"):
        push("ann/down", bars=3)


@pytest.mark.slow
def test_a_commit_that_fails_leaves_nothing_and_can_be_made_again(hub, push, client, made):
    hub.fail("POST", "/commit/", 503, times=1)
    with pytest.raises(RepositoryError, match="the Hub answers 503 .*: try again later"):
        push("ann/again")
    assert hub.repo("ann/again", "datasets").files() == {}
    push("ann/again")
    assert client(load, "ann/again", "4bar") == content(made())


@pytest.mark.slow
def test_a_large_file_that_breaks_off_is_sent_again(hub, push, client, made):
    hub.fail("PUT", "/storage/", "drop", times=1)
    push("ann/broken-off")
    assert asked(hub, "PUT", "/storage/") == NUM_SHARDS + len(SPLITS[1:]) + 1
    assert client(load, "ann/broken-off", "4bar") == content(made())


@pytest.mark.parametrize("bars", [0, -1])
def test_a_bad_argument_is_refused_before_the_hub_is_asked(hub, push, bars):
    with pytest.raises(ValueError, match=f"bars: found {bars}"):
        push("ann/refused", bars=bars)
    assert hub.requests == []


# The command


@pytest.mark.slow
def test_the_command_pushes_without_warnings_and_says_where_to(hub, environment, demo_grooves):
    command = [
        sys.executable,
        "-W",
        "error::RuntimeWarning",
        "-m",
        "musicvae",
        "push-data",
        "command",
    ]
    command += ["--data_dir", str(demo_grooves), "--private"]
    done = subprocess.run(
        [*command, "--bars", "8", "--hop_bars", "4"],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    address = f"{hub.url}/datasets/ann/command"
    assert done.stdout.splitlines() == [
        f"Repository  {address}, private",
        "Windows     8bar: train 98, validation 19, test 18",
        f"Published   {address}",
    ]
    repository = hub.repo("ann/command", "datasets")
    assert (repository.private, card(repository).data.hop_bars) == (True, {"8bar": 4})
    assert environment["HF_TOKEN"] not in done.stdout + done.stderr
