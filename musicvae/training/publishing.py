"""Models on the Hugging Face Hub, pushed while training continues."""

import json
import shlex
import shutil
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import disable_progress_bars
from tqdm.auto import tqdm

from processing.counted import counted

from ..atomic import write_text
from ..hub import is_transient, open_repository, reason
from ..retrying import retry
from .arguments import HubArguments, TrainingArguments
from .checkpoints import STAGING, Progress, checkpoint_weights
from .model_folder import model_files

MAX_ATTEMPTS = 8
# Seconds that a training that is over waits for a Hub that does not answer at all.
PATIENCE = 3600.0

ADVICE = {
    "elsewhere": "choose another --hub_model_id",
    "otherwise": "try again later, or train without --push_to_hub",
}

PUBLISHED = "published.json"  # in the output folder
# Files of the output folder that are not part of the model.
NOT_PUBLISHED = ("checkpoints/*", "demo_grooves/*", f"{STAGING}/*", PUBLISHED)

# Writes a model folder: where to, the file of the weights, their step, the run's progress.
WriteModel = Callable[[Path, Path, int, Progress], None]


class Push(NamedTuple):
    """A model folder to push: of which step, what writes it first, what removes it afterwards."""

    step: int
    folder: Path
    prepare: Callable[[], None] = lambda: None
    discard: Callable[[], None] = lambda: None


def open_model_repository(hub: HubArguments, output_dir: Path) -> str:
    """Opens the repository that a run pushes to, and returns its whole name.

    Raises:
        RepositoryError: see `open_repository`.
    """
    name = hub.hub_model_id or output_dir.resolve().name
    return open_repository(name, hub.hub_private, **ADVICE).name


class Published:
    """Record of what a run has pushed to a repository, which alone it may delete or move there.

    It lies in the output folder, so that a run that is resumed knows it.
    """

    def __init__(self, output_dir: Path, repository: str):
        self.path, self.repository = output_dir / PUBLISHED, repository
        self.files: set[str] = set()
        self.commits: set[str] = set()
        if self.path.is_file():
            try:
                saved = json.loads(self.path.read_text(encoding="utf-8"))
                if saved["repository"] == repository:
                    self.files, self.commits = set(saved["files"]), set(saved["commits"])
            except (ValueError, LookupError, TypeError) as error:
                tqdm.write(f"{self.path}: damaged ({error}): what was pushed before stays")

    def add(self, files: Iterable[str], commit: str) -> None:
        self.files.update(files)
        self.commits.add(commit)
        record = {
            "repository": self.repository,
            "files": sorted(self.files),
            "commits": sorted(self.commits),
        }
        write_text(self.path, json.dumps(record, indent=2))


class Publisher:
    """Pushes models, each in one commit with the tag step-N, in a thread of its own.

    While one is being pushed, only the newest of those that wait is kept. Whatever goes wrong is
    shown, and training continues.

    Args:
        hub: whose `hub_model_id` is the repository's whole name.
        training: of the run.
        write_model: writes a model folder.
    """

    def __init__(self, hub: HubArguments, training: TrainingArguments, write_model: WriteModel):
        self.repository, self.strategy = hub.hub_model_id or "", hub.hub_strategy
        self.output_dir, self.max_steps = Path(training.output_dir), training.max_steps
        self.staging = self.output_dir / STAGING
        self.published = Published(self.output_dir, self.repository)
        self.write_model = write_model
        self.error: Exception | None = None  # of the push before
        self._waiting: Push | None = None
        self._pushing = False
        self._changed = threading.Condition()
        shutil.rmtree(self.staging, ignore_errors=True)  # of a run that was killed
        disable_progress_bars()  # they would tear that of training
        threading.Thread(target=self._work, daemon=True).start()

    def publish(self, progress: Progress) -> None:
        """Pushes the checkpoint just saved if the strategy asks for it, and does not wait."""
        step, is_best = progress.step, progress.step == progress.best_step
        final = is_best and step == self.max_steps  # which `finish` pushes
        if final or not {"end": False, "best": is_best, "every_save": True}[self.strategy]:
            return
        staging = self.staging / f"step-{step}"
        weights, folder = staging / "weights.safetensors", staging / "model"
        write = partial(self.write_model, folder, weights, step, replace(progress))
        push = Push(step, folder, write, partial(shutil.rmtree, staging, ignore_errors=True))
        try:  # now, before training changes them
            folder.mkdir(parents=True)
            shutil.copy(checkpoint_weights(self.output_dir, step), weights)
            if (logs := self.output_dir / "logs").is_dir():  # there are none without TensorBoard
                shutil.copytree(logs, folder / "logs")
        except OSError as error:
            push.discard()
            self._note(push, error)
        else:
            self._put(push)

    def finish(self, progress: Progress) -> None:
        """Pushes the output folder, waits for it, and says where it is or how to push it later."""
        deadline = time.monotonic() + PATIENCE
        self.wait(deadline)
        self._put(Push(progress.best_step, self.output_dir))
        if not self.wait(deadline):
            self.error = TimeoutError(f"the Hub has not answered for {PATIENCE:.0f} s")
        shutil.rmtree(self.staging, ignore_errors=True)
        if self.error is None:
            print(f"Published  {HfApi().endpoint}/{self.repository}")
        else:
            print(
                f"The model could not be pushed: {reason(self.error)}. It is in {self.output_dir}; "
                f"to push it later:\n{upload_command(self.repository, self.output_dir)}"
            )

    def wait(self, deadline: float | None = None) -> bool:
        """Waits until nothing is left to push; False if `time.monotonic()` reaches the deadline."""
        timeout = None if deadline is None else max(0.0, deadline - time.monotonic())
        with self._changed:
            return self._changed.wait_for(lambda: not (self._waiting or self._pushing), timeout)

    def _put(self, push: Push) -> None:
        with self._changed:
            if self._waiting:
                self._waiting.discard()
            self._waiting = push
            self._changed.notify_all()

    def _work(self) -> None:
        while True:
            with self._changed:
                while (push := self._waiting) is None:
                    self._changed.wait()
                self._waiting, self._pushing = None, True
            try:
                push.prepare()
                commit = partial(commit_folder, self.published, push.folder, push.step)
                tag = partial(tag_commit, self.published, push.step)
                tag(retry(commit, is_transient, MAX_ATTEMPTS))
                self.error = None
            except Exception as error:  # of whatever kind: training continues
                self._note(push, error)
            push.discard()
            with self._changed:
                self._pushing = False
                self._changed.notify_all()

    def _note(self, push: Push, error: Exception) -> None:
        """Shows the first of several errors in a row; `finish` shows the last of all."""
        if self.error is None and push.folder != self.output_dir:
            tqdm.write(
                f"step {push.step}: not pushed to {self.repository}: {reason(error)}. Training "
                "goes on, and so do attempts to push"
            )
        self.error = error


def commit_folder(published: Published, folder: Path, step: int) -> str:
    """Pushes a model folder in one commit, and returns the commit's id.

    `HfApi.upload_folder` may make several commits, with half a model between them. Of the files
    that are there, those go that the run pushed before and has no more.
    """
    api, repository = HfApi(), published.repository
    paths = [path.as_posix() for path in model_files(folder)]
    present = set(api.list_repo_files(repository)) - {".gitattributes"}
    if not published.files and present:
        tqdm.write(
            f"{repository}: found {counted(len(present), 'file')} that this run did not push: "
            "those of a model are replaced, all others stay"
        )
    stale = sorted(present & published.files - set(paths))
    operations: list[CommitOperationAdd | CommitOperationDelete] = [
        *(CommitOperationAdd(path, folder / path) for path in paths),
        *(CommitOperationDelete(path) for path in stale),
    ]
    commit = api.create_commit(repository, operations, commit_message=f"Step {step}").oid
    published.add(paths, commit)
    return commit


def tag_commit(published: Published, step: int, commit: str) -> None:
    """Gives a commit the tag step-N, unless that is the tag of another run's commit."""
    api, repository, name = HfApi(), published.repository, f"step-{step}"

    def tag() -> None:
        try:
            api.create_tag(repository, tag=name, revision=commit)
        except HfHubHTTPError as error:
            if error.response.status_code != 409:
                raise
            targets = {ref.name: ref.target_commit for ref in api.list_repo_refs(repository).tags}
            if targets.get(name, commit) not in published.commits:
                tqdm.write(
                    f"{repository}: found the tag {name} at commit {targets[name][:8]} of another "
                    f"run, where it stays; this run's step {step} is commit {commit[:8]}"
                )
                return
            api.delete_tag(repository, tag=name)  # of this step before
            api.create_tag(repository, tag=name, revision=commit)

    retry(tag, is_transient, MAX_ATTEMPTS)


def upload_command(repository: str, output_dir: Path) -> str:
    """The shell command that pushes a model."""
    excluded = [word for pattern in NOT_PUBLISHED for word in ("--exclude", pattern)]
    return shlex.join(["hf", "upload", repository, str(output_dir), *excluded])
