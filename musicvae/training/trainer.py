"""The training run: prepare, train, evaluate, save, export."""

import math
import os
import tempfile
import time
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, skip_first_batches
from accelerate.utils import (
    DataLoaderConfiguration,
    GradientAccumulationPlugin,
    ProjectConfiguration,
    set_seed,
)
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from modeling_musicvae import MusicVAEConfig, MusicVAEModel
from modeling_musicvae.modeling_musicvae import MusicVAEOutput

from ..data.batches import augment, fingerprint, load_data, num_windows
from ..evaluation.metrics import evaluate
from .arguments import Arguments, TrainingArguments
from .checkpoints import (
    Progress,
    Run,
    check_space,
    checkpoints,
    describe_run,
    find_checkpoint,
    load_checkpoint,
    remove_unfinished,
    save_checkpoint,
)
from .interruption import Interruption
from .locking import locked
from .logging import (
    PROJECT,
    Speedometer,
    describe,
    estimate,
    log_evaluation,
    log_pictures,
    log_step,
)
from .model_folder import ModelFolder
from .publishing import Publisher, open_model_repository
from .trackers import check_trackers, end_training

LOG_EVERY_STEPS = 10
# That an interrupted run waits for a push under way; who interrupts may kill it some 30 later.
GRACE_SECONDS = 15.0


def train_model(arguments: Arguments) -> None:
    """Trains by `arguments` and leaves a model folder.

    Raises:
        FolderInUseError: another run trains in the output folder.
    """
    is_main = os.environ.get("RANK", "0") == "0"  # as the launcher says
    with locked(Path(arguments.training.output_dir)) if is_main else nullcontext():
        run_training(arguments)


def run_training(arguments: Arguments) -> None:
    training = arguments.training
    accelerator = start_accelerator(training)
    prepare_output_dir(accelerator, training)
    publishing = arguments.hub.push_to_hub and accelerator.is_main_process
    if publishing:
        arguments.hub.hub_model_id = open_model_repository(arguments.hub, Path(training.output_dir))
    train_loader, eval_loader, processor = load_data(accelerator, arguments)
    set_num_steps(training, num_windows(train_loader))
    run = describe_run(arguments, accelerator.num_processes, fingerprint(train_loader))
    checkpoint = find_checkpoint(training, run)

    set_seed(training.seed)
    config = MusicVAEConfig(**asdict(arguments.architecture))
    model = new_model(config, training.pretrained_model)
    check_space(Path(training.output_dir), model)
    optimizer = torch.optim.AdamW(parameter_groups(model, training.weight_decay), fused=True)
    set_seed(training.seed, device_specific=True)  # ranks draw different latents
    model, optimizer, eval_loader = accelerator.prepare(model, optimizer, eval_loader)
    accelerator.init_trackers(PROJECT)

    progress = load_checkpoint(accelerator, checkpoint)
    if progress.step > training.max_steps:
        raise ValueError(
            f"max_steps: found {training.max_steps}, expected at least the {progress.step} that "
            "the checkpoint has"
        )
    train_loader = skip_first_batches(
        train_loader, progress.step * training.gradient_accumulation_steps
    )
    describe(accelerator, arguments, accelerator.unwrap_model(model), train_loader, progress)
    model_folder = ModelFolder(arguments, config, processor, train_loader, eval_loader.dataset)
    publisher = Publisher(arguments.hub, training, model_folder.write) if publishing else None
    Trainer(
        accelerator,
        arguments,
        model,
        optimizer,
        train_loader,
        eval_loader,
        progress,
        run,
        publisher,
    ).train()
    end_training(accelerator)
    if accelerator.is_main_process:
        model_folder.export(progress)
    if publisher:
        publisher.finish(progress)


def start_accelerator(training: TrainingArguments) -> Accelerator:
    """The accelerator of a run; what the launcher has decided is noted in its arguments."""
    check_trackers(training.report_to)
    accelerator = Accelerator(
        mixed_precision=training.mixed_precision,
        log_with=training.report_to,
        project_config=ProjectConfiguration(
            training.output_dir, logging_dir=os.path.join(training.output_dir, "logs")
        ),
        dataloader_config=DataLoaderConfiguration(split_batches=True),
        gradient_accumulation_plugin=GradientAccumulationPlugin(
            num_steps=training.gradient_accumulation_steps,
            sync_with_dataloader=False,
        ),
    )
    training.mixed_precision = accelerator.mixed_precision
    use_all_cores(accelerator)
    return accelerator


def set_num_steps(training: TrainingArguments, num_windows: int | None) -> None:
    """Fills in the numbers of steps that were not given."""
    if training.max_steps is None:
        training.max_steps = -(-training.num_epochs * num_windows // training.batch_size)
    if training.decay_steps is None:
        training.decay_steps = training.max_steps


def use_all_cores(accelerator: Accelerator) -> None:
    """On CPUs, shares the cores among the processes; the launcher would give each one thread."""
    if accelerator.device.type == "cpu":
        local_processes = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
        torch.set_num_threads(max(1, num_cores() // local_processes))


def num_cores() -> int:
    """The cores that this process may run on, which taskset or a scheduler may have limited."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def new_model(config: MusicVAEConfig, pretrained_model: str | None) -> MusicVAEModel:
    """A model with random weights, or with those of a trained one."""
    if pretrained_model is None:
        return MusicVAEModel(config)
    return MusicVAEModel.from_pretrained(pretrained_model, config=config, dtype=torch.float32)


def prepare_output_dir(accelerator: Accelerator, training: TrainingArguments) -> None:
    """Fails before any work if the folder cannot be written or holds another run."""
    output_dir = Path(training.output_dir)
    output_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=output_dir):
        pass
    if training.resume_from_checkpoint is None and checkpoints(output_dir):
        raise FileExistsError(
            f"{output_dir} holds checkpoints of an earlier run: go on with "
            "--resume_from_checkpoint latest, or choose another --output_dir"
        )
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        remove_unfinished(output_dir)


@dataclass
class Trainer:
    """The steps of a run, from where its progress stands to the last one.

    Attributes:
        accelerator: has prepared model, optimiser and loaders.
        arguments: of the run, with all numbers of steps.
        model, optimizer: trained in place.
        train_loader: batches without end, from the next step on.
        eval_loader: batches of validation windows.
        progress: kept up to date.
        run: is saved with each checkpoint.
        publisher: publishes checkpoints, if the run is published.
        skipped_in_a_row: steps just skipped because their gradient was not finite.
    """

    accelerator: Accelerator
    arguments: Arguments
    model: torch.nn.Module
    optimizer: torch.optim.Optimizer
    train_loader: DataLoader
    eval_loader: DataLoader
    progress: Progress
    run: Run
    publisher: Publisher | None
    skipped_in_a_row: int = 0

    @property
    def training(self) -> TrainingArguments:
        return self.arguments.training

    def train(self) -> None:
        """Trains to the last step, or until a signal ends the process.

        Raises:
            FloatingPointError: the training has diverged.
        """
        progress, max_steps = self.progress, self.training.max_steps
        interruption, first_step = Interruption(self.accelerator), progress.step
        is_main = self.accelerator.is_main_process
        bar = tqdm(total=max_steps, initial=first_step, unit="step", disable=not is_main)
        self.model.train()
        started = time.perf_counter() - progress.seconds
        speedometer = Speedometer(self.accelerator.num_processes)
        for batch in speedometer.watch(self.train_loader):
            if progress.step >= max_steps:
                break
            output = self.accumulate(batch)
            if not self.accelerator.sync_gradients:
                continue
            self.take_step()
            progress.seconds = time.perf_counter() - started
            bar.update()
            if progress.step - first_step == LOG_EVERY_STEPS:
                estimate(self.accelerator, bar)
            if progress.step % LOG_EVERY_STEPS == 0:
                log_step(self.accelerator, bar, output, speedometer.read(), progress)
            self.check_convergence()
            interrupted = progress.step < max_steps and interruption.happened()
            if self.evaluate_and_save(interrupted):
                speedometer.restart()
            if interrupted:
                bar.close()
                if self.publisher:
                    self.publisher.wait(time.monotonic() + GRACE_SECONDS)
                interruption.exit(self.training)
        bar.close()
        interruption.end()

    def accumulate(self, batch: dict[str, torch.Tensor]) -> MusicVAEOutput:
        """Adds the gradient of a batch, a step or a part of one."""
        with self.accelerator.accumulate(self.model):
            output = self.model(*augment(batch, self.arguments), step=self.progress.step)
            self.accelerator.backward(output.loss)
        return output

    def take_step(self) -> None:
        """Updates the weights, or skips the step if the gradient is not finite.

        Where the loss is not finite, neither is its gradient. It is averaged over all processes,
        so they all do the same.
        """
        rate = learning_rate(self.training, self.progress.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        max_norm = self.training.max_grad_norm
        norm = self.accelerator.clip_grad_norm_(self.model.parameters(), max_norm)
        finite = math.isfinite(norm)
        if finite or self.accelerator.scaler is not None:  # a scaler skips and learns from it
            self.optimizer.step()
        self.optimizer.zero_grad()
        self.progress.step += 1
        self.progress.skipped_steps += not finite
        self.skipped_in_a_row = 0 if finite else self.skipped_in_a_row + 1

    def check_convergence(self) -> None:
        """Raises `FloatingPointError` after too many steps in a row that were skipped."""
        if self.skipped_in_a_row <= self.training.max_skipped_steps:
            return
        whole = checkpoints(Path(self.training.output_dir))
        raise FloatingPointError(
            f"step {self.progress.step}: found {self.skipped_in_a_row} steps in a row whose "
            f"gradient is not finite, expected at most {self.training.max_skipped_steps}. The last "
            f"good checkpoint is {whole[-1] if whole else 'none'}; a lower --learning_rate may help"
        )

    def evaluate_and_save(self, interrupted: bool) -> bool:
        """Evaluates and saves if it is time to.

        Returns:
            Whether it did either.
        """
        training, step = self.training, self.progress.step
        last = step == training.max_steps
        evaluating = last or step % training.eval_steps == 0
        saving = last or interrupted or step % training.save_steps == 0
        if evaluating:
            saving |= self.evaluate()
        if saving:
            save_checkpoint(self.accelerator, training, self.progress, self.run)
            if self.publisher and not interrupted:
                self.publisher.publish(self.progress)
        return evaluating or saving

    def evaluate(self) -> bool:
        """Evaluates and shows the result; True if it is the best so far."""
        accelerator, progress, seed = self.accelerator, self.progress, self.training.seed
        metrics = evaluate(accelerator, self.model, self.eval_loader, seed)
        log_evaluation(accelerator, metrics, progress)
        model = accelerator.unwrap_model(self.model)
        log_pictures(accelerator, model, self.eval_loader, self.training, progress.step)
        improved = metrics["loss"] < progress.best_metrics.get("loss", math.inf)
        if improved:
            progress.best_step, progress.best_metrics = progress.step, metrics
        return improved


def learning_rate(training: TrainingArguments, step: int) -> float:
    """The learning rate of a step: a linear warm-up times a decay by half a cosine."""
    warmup = min((step + 1) / (training.warmup_steps + 1), 1)
    cosine = (1 + math.cos(math.pi * min(step / training.decay_steps, 1))) / 2
    span = training.learning_rate - training.min_learning_rate
    return warmup * (training.min_learning_rate + span * cosine)


def parameter_groups(model: torch.nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """The parameters for AdamW: biases, also those of patterns, are not decayed."""
    decayed: list[torch.nn.Parameter] = []
    others: list[torch.nn.Parameter] = []
    for name, parameter in model.named_parameters():
        (others if parameter.ndim < 2 or "bias" in name else decayed).append(parameter)
    return [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
