"""Models are pushed to the Hub, which may fail in every way, while training continues.

Publishing runs in a process that knows no Hub but the one on the loopback interface.
"""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
import training_runs
from huggingface_hub import ModelCard
from loopback_hub import Client, Repository, asked
from training_runs import RUN, STRANGER, TWO_PROCESSES, assert_ends_like, launch, launched, parse

from modeling_musicvae import MusicVAEModel
from musicvae.hub import RepositoryError
from musicvae.training import publishing
from musicvae.training.arguments import HubArguments, TrainingArguments
from musicvae.training.checkpoints import Progress, checkpoint_weights, checkpoints
from musicvae.training.model_folder import model_files
from musicvae.training.publishing import (
    MAX_ATTEMPTS,
    STAGING,
    Publisher,
    open_model_repository,
    upload_command,
)
from processing import MusicVAEProcessor

SECOND = 0.001  # of the publishing process's waiting, in seconds


@pytest.fixture(scope="module")
def client(client) -> Client:
    """That of `conftest.py`, in a hurry."""
    client(shorten_waiting)
    return client


def shorten_waiting() -> None:
    """That of the Hub's client too, in this process."""
    sleep = time.sleep
    time.sleep = lambda seconds: sleep(seconds * SECOND)


def write_model(folder: Path, weights: Path, step: int, progress: Progress) -> None:
    """Writes all that belongs to a model, as small as can be."""
    (folder / "samples").mkdir(parents=True, exist_ok=True)
    shutil.copy(weights, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"step": step}))
    (folder / "processor_config.json").write_text("{}")
    (folder / "modeling_musicvae.py").write_text("import torch\n")
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\nDrums.\n")
    (folder / "samples" / f"of-step-{step}.mid").write_bytes(b"MThd\0")
    (folder / "samples.png").write_bytes(b"\x89PNG\0")


FILES = {
    "README.md",
    "config.json",
    "logs/events",
    "model.safetensors",
    "modeling_musicvae.py",
    "processor_config.json",
    "samples.png",
}


def files_of(step: int) -> set[str]:
    return FILES | {f"samples/of-step-{step}.mid"}


@contextmanager
def all_output(path: Path) -> Iterator[None]:
    """Sends all output of this process to a file, whichever way it is printed."""
    streams = (sys.stdout, sys.stderr)
    kept = [os.dup(stream.fileno()) for stream in streams]
    with path.open("ab") as file:
        try:
            for stream in streams:
                os.dup2(file.fileno(), stream.fileno())
            yield
        finally:
            for stream, descriptor in zip(streams, kept, strict=True):
                stream.flush()
                os.dup2(descriptor, stream.fileno())
                os.close(descriptor)


def publish(
    output_dir: Path, steps: list[int], finish: bool = False, strategy: str = "every_save"
) -> None:
    """A training run without training, of which the first step is the best one."""
    hub = HubArguments(push_to_hub=True, hub_strategy=strategy)
    hub.hub_model_id = open_model_repository(hub, output_dir)
    training = TrainingArguments(str(output_dir), max_steps=steps[-1] if finish else None)
    publisher = Publisher(hub, training, write_model)
    for step in steps:
        publisher.publish(save(output_dir, step, best_step=steps[0]))
        publisher.wait()
    if finish:
        weights = checkpoint_weights(output_dir, steps[0])
        write_model(output_dir, weights, steps[0], Progress())
        publisher.finish(Progress(steps[-1], best_step=steps[0]))


def save(output_dir: Path, step: int, best_step: int) -> Progress:
    """Writes what a run has written after a step."""
    weights = checkpoint_weights(output_dir, step)
    weights.parent.mkdir(parents=True)
    weights.write_bytes(weights_of(step))
    (output_dir / "logs").mkdir(exist_ok=True)
    (output_dir / "logs" / "events").write_bytes(b"\0" * step)
    return Progress(step, best_step=best_step)


def weights_of(step: int) -> bytes:
    return np.random.default_rng(step).bytes(100_000)


@pytest.fixture
def output_dir(tmp_path) -> Path:
    """Of a name of its own, which is the repository's as well."""
    return tmp_path / tmp_path.name


@pytest.fixture
def repo(hub, output_dir) -> Callable[[], Repository]:
    return lambda: hub.repo(f"ann/{output_dir.name}")


@pytest.fixture
def run(client, token, output_dir) -> Callable[..., str]:
    """Calls a function of the output folder in the process of the client.

    Returns all that is printed, in which there is no token, nor is there one on the disk.
    """

    def run(function: Callable = publish, *args, **kwargs) -> str:
        path = output_dir.with_suffix(".txt")
        output_dir.mkdir(exist_ok=True)
        client(printing, path, function, output_dir, *args, **kwargs)
        for file in (path, *output_dir.rglob("*")):
            assert file.is_dir() or token.encode() not in file.read_bytes(), file
        assert not (output_dir / STAGING).exists() or not any((output_dir / STAGING).iterdir())
        return path.read_text()

    return run


def printing(path: Path, function: Callable, *args, **kwargs) -> None:
    with all_output(path):
        function(*args, **kwargs)


def titles(repo: Repository, revision: str = "main") -> list[str]:
    """Those of the commits, the oldest first."""
    return [commit.title for commit in reversed(repo.history(revision))][1:]


# What is pushed


def test_each_push_is_one_commit_with_a_tag(run, repo):
    assert run(steps=[4, 8]) == ""
    assert titles(repo()) == ["Step 4", "Step 8"]
    assert repo().tags.keys() == {"step-4", "step-8"}
    for step in (4, 8):
        files = repo().files(f"step-{step}")
        assert files.keys() == files_of(step)
        assert files["model.safetensors"] == weights_of(step)
    assert repo().files() == repo().files("step-8")


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [
        ("end", ["Step 4"]),
        ("best", ["Step 4"]),
        ("every_save", ["Step 4", "Step 8", "Step 4"]),
    ],
)
def test_the_best_model_is_there_in_the_end(strategy, expected, run, repo, hub, output_dir):
    printed = run(steps=[4, 8], finish=True, strategy=strategy)
    assert printed == f"Published  {hub.url}/ann/{output_dir.name}\n"
    best = {str(path): (output_dir / path).read_bytes() for path in model_files(output_dir)}
    assert best["model.safetensors"] == weights_of(4)
    assert repo().files() == repo().files("step-4") == best
    assert titles(repo())[: len(expected)] == expected


def test_the_best_strategy_pushes_what_is_best_so_far(run, repo):
    run(steps=[4, 8, 12], strategy="best")
    assert titles(repo()) == ["Step 4"]


def test_a_run_that_is_resumed_replaces_what_it_pushed_before(run, repo, output_dir):
    run(steps=[4, 8])
    shutil.rmtree(output_dir / "checkpoints")
    (output_dir / STAGING / "step-9").mkdir(parents=True)  # as a run that is killed leaves it
    (output_dir / "logs" / "events").rename(output_dir / "logs" / "more")
    assert run(steps=[4]) == ""
    assert repo().files() == repo().files("step-4")
    assert repo().files().keys() == files_of(4) | {"logs/more"}


def test_another_run_deletes_and_moves_nothing_of_the_first(run, repo, output_dir):
    run(steps=[4, 8])
    first, tags = dict(repo().files()), dict(repo().tags)
    shutil.rmtree(output_dir)
    printed = run(steps=[4, 12])
    found = (
        f"{repo().id}: found {len(first)} files that this run did not push: those of a model are"
    )
    assert printed.count(found) == 1
    head = next(commit.id for commit in repo().history() if commit.title == "Step 4")
    assert f"found the tag step-4 at commit {tags['step-4'][:8]} of another run" in printed
    assert f"this run's step 4 is commit {head[:8]}" in printed
    assert repo().tags.items() > tags.items()
    files = repo().files()
    assert files.keys() == files_of(12) | {"samples/of-step-8.mid"}
    assert files["samples/of-step-8.mid"] == first["samples/of-step-8.mid"]
    assert files["model.safetensors"] == weights_of(12)


def test_a_record_that_is_damaged_deletes_nothing(run, repo, output_dir):
    run(steps=[4])
    (output_dir / "published.json").write_text("{")
    shutil.rmtree(output_dir / "checkpoints")
    assert "published.json: damaged (" in run(steps=[8])
    assert repo().files().keys() == files_of(8) | {"samples/of-step-4.mid"}


def test_a_private_repository_stays_so(run, repo, hub, output_dir):
    run(open_repository_as, private=True)
    assert repo().private
    hub.repo(repo().id).private = False
    with pytest.raises(RepositoryError, match="found a public repository, expected a private one"):
        run(open_repository_as, private=True)


def open_repository_as(output_dir: Path, name: str | None = None, private: bool = False) -> None:
    open_model_repository(HubArguments(True, name, private), output_dir)


def publish_without_logs(output_dir: Path) -> None:
    hub = HubArguments(push_to_hub=True, hub_strategy="every_save")
    hub.hub_model_id = open_model_repository(hub, output_dir)
    publisher = Publisher(hub, TrainingArguments(str(output_dir)), write_model)
    progress = save(output_dir, 4, best_step=4)
    shutil.rmtree(output_dir / "logs")
    publisher.publish(progress)
    publisher.wait()


def test_a_model_is_pushed_without_logs_where_there_are_none(run, repo):
    assert "not pushed" not in run(publish_without_logs)
    assert repo().files("step-4").keys() == files_of(4) - {"logs/events"}


def pile_up(output_dir: Path) -> None:
    """Publishes three more steps before the first is pushed."""
    started, go_on = threading.Event(), threading.Event()

    def write_slowly(folder: Path, weights: Path, step: int, progress: Progress) -> None:
        started.set()
        assert go_on.wait(60)
        write_model(folder, weights, step, progress)

    hub = HubArguments(push_to_hub=True, hub_strategy="every_save")
    hub.hub_model_id = open_model_repository(hub, output_dir)
    publisher = Publisher(hub, TrainingArguments(str(output_dir)), write_slowly)
    for step in (1, 2, 3, 4):
        publisher.publish(save(output_dir, step, best_step=1))
        assert started.wait(60)
    assert {path.name for path in (output_dir / STAGING).iterdir()} == {"step-1", "step-4"}
    go_on.set()
    publisher.wait()


def test_of_the_pushes_that_wait_the_newest_is_kept(run, repo):
    run(pile_up)
    assert titles(repo()) == ["Step 1", "Step 4"]


# Faults


@pytest.mark.parametrize("fault", [412, 429, 500, 503, "drop"])
def test_a_push_that_fails_for_the_moment_is_tried_again(fault, hub, run, repo):
    hub.fail("POST", "/commit/", fault, times=3)
    assert "not pushed" not in run(steps=[4])
    assert asked(hub, "POST", "/commit/") == 4
    assert titles(repo()) == ["Step 4"]
    assert repo().files("step-4").keys() == files_of(4)


@pytest.mark.parametrize("fault", [401, 403, 404])
def test_a_push_that_is_refused_is_reported_once_and_the_next_is_tried(fault, hub, run, repo):
    hub.fail("POST", "/commit/", fault, times=2)
    printed = run(steps=[4, 8, 12], finish=True)
    assert printed.count(f"not pushed to {repo().id}: the Hub answers {fault}") == 1
    assert "step 4: not pushed" in printed
    assert "Published" in printed
    assert titles(repo()) == ["Step 12", "Step 4"]


def test_weights_that_are_cut_off_are_sent_again(hub, run, repo):
    hub.fail("PUT", "/storage/", "drop", times=8)  # the client itself tries six times
    assert "not pushed" not in run(steps=[4])
    assert repo().files("step-4")["model.safetensors"] == weights_of(4)
    assert titles(repo()) == ["Step 4"]


def test_a_slow_hub_is_waited_for(hub, run, repo):
    hub.fail(".*", "/(commit|preupload|tag)/", "slow", seconds=0.3)
    run(steps=[4], finish=True)
    assert titles(repo()) == ["Step 4"]


def test_a_tag_that_fails_is_set_without_another_commit(hub, run, repo):
    hub.fail("POST", "/tag/", 500, times=2)
    run(steps=[4])
    assert titles(repo()) == ["Step 4"]
    assert repo().tags == {"step-4": repo().branches["main"]}


@pytest.mark.parametrize("fault", [503, "drop"])
def test_what_cannot_be_pushed_is_pushed_by_the_command_shown(
    fault, hub, environment, run, repo, output_dir
):
    hub.fail("POST", "/commit/", fault)
    printed = run(steps=[4, 8], finish=True)
    assert asked(hub, "POST", "/commit/") == 3 * MAX_ATTEMPTS  # at each save and in the end
    *_, problem, command = printed.splitlines()
    assert problem.startswith("The model could not be pushed: the Hub ")
    assert command == upload_command(repo().id, output_dir)
    assert repo().files() == {}
    hub.heal()
    (output_dir / "demo_grooves").mkdir()
    (output_dir / "demo_grooves" / "info.csv").write_text("not for the Hub")
    program, *words = shlex.split(command)
    path = Path(sys.executable).with_name(program)
    subprocess.run([path, *words], env=os.environ | environment, check=True, capture_output=True)
    assert repo().files().keys() == files_of(4)
    assert repo().files()["model.safetensors"] == weights_of(4)


def give_up(output_dir: Path) -> None:
    """Ends a run whose patience is short, and cannot wait for the Hub."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(publishing, "PATIENCE", 0.5)
        publish(output_dir, steps=[4], finish=True)


def test_a_hub_that_never_answers_does_not_keep_a_run_from_its_end(hub, run, repo, output_dir):
    hub.fail("POST", "/commit/", "slow", seconds=5)
    printed = run(give_up)
    assert "could not be pushed: TimeoutError: the Hub has not answered" in printed
    assert printed.endswith(f"{upload_command(repo().id, output_dir)}\n")


# Arguments and access


def test_arguments_of_the_hub_need_the_first_of_them():
    assert parse(push_to_hub=True, hub_private=True).hub == HubArguments(True, None, True, "end")
    with pytest.raises(ValueError, match="^push_to_hub: found False, expected True"):
        parse(hub_model_id="ann/drums")


def train_and_publish(output_dir: Path, token: str | None = None, **arguments) -> None:
    """A run that waits for each push, in the process of the client."""
    publish = Publisher.publish

    def publish_and_wait(publisher: Publisher, progress: Progress) -> None:
        publish(publisher, progress)
        publisher.wait()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Publisher, "publish", publish_and_wait)
        if token is not None:
            patch.setenv("HF_TOKEN", token)
        training_runs.train(output_dir, push_to_hub=True, **arguments)


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("no token", "log in by `hf auth login`, or set HF_TOKEN"),
        ("wrong token", "401 .*: log in by `hf auth login`, or set HF_TOKEN"),
        ("token that is none", "log in by `hf auth login`, or set HF_TOKEN"),
        ("token to read", "403 .*: use a token that may write there"),
        ("name of another's", "403 .*: use a token that may write there"),
        ("impossible name", "my drums: .*: choose another --hub_model_id"),
        ("hub in trouble", "the Hub answers 503 .*: try again later"),
        ("hub down", "the Hub cannot be reached .*: try again later"),
    ],
    ids=lambda value: value if len(value) < 24 else "",
)
def test_without_access_no_step_is_trained(case, message, hub, client, token, output_dir):
    read_only = hub.create_token("ann", "read")
    secret = {
        "no token": "",
        "wrong token": "hf_wrong",
        "token that is none": "hf_é",
        "token to read": read_only,
    }.get(case, token)
    name = {"name of another's": "bob/drums", "impossible name": "my drums"}.get(case, "drums")
    if case.startswith("hub"):
        hub.fail(".*", "", 503 if case == "hub in trouble" else "drop")
    with pytest.raises(RepositoryError, match=message) as error:
        client(train_and_publish, output_dir, secret, data="demo", hub_model_id=name)
    assert not secret or secret not in f"{error.value} {error.value.__cause__}"
    assert list(output_dir.iterdir()) == []


# Whole runs


@pytest.fixture(scope="module")
def published(
    running_hub, client, token, demo_grooves, tmp_path_factory
) -> tuple[Path, Repository]:
    """The folder of a run that published each of its saves, and the repository."""
    folder = tmp_path_factory.mktemp("published")
    output_dir, settings = folder / "demo-drums", RUN | {"save_steps": 3, "data": "groove"}
    settings |= {"data_dir": demo_grooves, "hub_strategy": "every_save", "hub_private": True}
    client(printing, folder / "printed", train_and_publish, output_dir, **settings)
    assert token not in (folder / "printed").read_text()
    return output_dir, running_hub.repo("ann/demo-drums")


def test_each_save_of_a_run_is_a_commit(published):
    output_dir, repo = published
    assert repo.private
    steps = [3, 4, 6, 8, 9, 10]  # saves, and evaluations that found a better model
    assert titles(repo) == [f"Step {step}" for step in steps]
    assert repo.tags.keys() == {f"step-{step}" for step in steps}


def test_the_hub_has_the_model_folder(published):
    output_dir, repo = published
    files = {path.as_posix(): (output_dir / path).read_bytes() for path in model_files(output_dir)}
    assert repo.files() == files
    names = files.keys() - {name for name in files if name.startswith("logs/")}
    for tag in repo.tags:
        assert {name for name in repo.files(tag) if not name.startswith("logs/")} == names
        assert any(name.startswith("logs/musicvae/events") for name in repo.files(tag))


def test_publishing_does_not_change_training(published, uninterrupted):
    assert_ends_like(published[0], uninterrupted)


def test_only_the_card_of_a_model_that_is_the_best_has_metrics(published):
    _, repo = published
    cards = {tag: repo.files(tag)["README.md"].decode() for tag in ("step-3", "step-4")}
    assert [tag for tag, card in cards.items() if "the best on the" in card] == ["step-4"]
    assert [tag for tag, card in cards.items() if "| elbo |" in card] == ["step-4"]
    assert [tag for tag, card in cards.items() if f"those of {tag.replace('-', ' ')}" in card] == [
        *cards
    ]
    assert all(ModelCard(card).data.license == "apache-2.0" for card in cards.values())


def test_nothing_that_is_published_has_the_token(published, token):
    output_dir, repo = published
    for commit in repo.commits.values():
        assert token not in f"{commit.title} {commit.message}"
        assert all(token.encode() not in file.data for file in commit.files.values())
    for path in output_dir.rglob("*"):
        assert path.is_dir() or token.encode() not in path.read_bytes(), path


def weights(*args, **kwargs) -> dict[str, np.ndarray]:
    state = MusicVAEModel.from_pretrained(*args, **kwargs).state_dict()
    return {name: tensor.numpy() for name, tensor in state.items()}


def test_a_revision_is_the_model_of_its_step(published, client):
    output_dir, repo = published
    found = {step: client(weights, repo.id, revision=f"step-{step}") for step in (3, 10)}
    np.testing.assert_equal(found[10], weights(output_dir))
    assert any((found[3][name] != found[10][name]).any() for name in found[3])


def test_a_stranger_makes_the_same_drums_of_it(published, environment, tmp_path):
    assert_a_stranger_makes_the_same_drums(*published, environment, tmp_path)


def assert_a_stranger_makes_the_same_drums(
    output_dir: Path, repo: Repository, environment: dict[str, str], tmp_path: Path
) -> None:
    """Those of the model on the Hub are those of the output folder."""
    command = [sys.executable, "-I", "-c", STRANGER, repo.id]
    result = subprocess.run(
        command, cwd=tmp_path, env=os.environ | environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    model = MusicVAEModel.from_pretrained(output_dir)
    drums = model.sample(1, generator=torch.Generator().manual_seed(0))
    processor = MusicVAEProcessor.from_pretrained(output_dir)
    processor.decode(drums.piano_roll[0], drums.timing[0], bpm=100).write(tmp_path / "local.mid")
    assert (tmp_path / "groove.mid").read_bytes() == (tmp_path / "local.mid").read_bytes()


@pytest.mark.slow
def test_two_processes_killed_and_resumed_publish_one_model(
    hub, token, environment, tmp_path, monkeypatch
):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    output_dir = tmp_path / "killed"
    settings = {"push_to_hub": True, "hub_strategy": "every_save", "eval_steps": 3}
    settings["decay_steps"] = 9  # not those of the run, which is cut short
    with launched(output_dir, *TWO_PROCESSES, **settings, max_steps=1_000_000) as process:
        lines = []
        for line in process.stdout:
            lines.append(line)
            if line.startswith("step 9 "):
                break
        os.killpg(process.pid, signal.SIGKILL)
    step = int(checkpoints(output_dir)[-1].name.split("-")[1])
    further = {"max_steps": step + 3, "resume_from_checkpoint": "latest"}
    printed = launch(output_dir, *TWO_PROCESSES, **settings, **further)
    assert f"Published  {hub.url}/ann/killed" in printed
    assert token not in printed + "".join(lines)
    repo = hub.repo("ann/killed")
    files = {path.as_posix(): (output_dir / path).read_bytes() for path in model_files(output_dir)}
    assert repo.files() == files
    assert not (output_dir / STAGING).exists()
    assert_a_stranger_makes_the_same_drums(output_dir, repo, environment, tmp_path)
