"""Trains a MusicVAE on drum MIDI and leaves a model folder, new MIDI files and a picture of them.

    accelerate launch train_accelerate.py --config recipes/quickstart.yaml

Arguments come from a YAML recipe (--config) and from the command line, which wins.
"""

import math
import os
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DataLoaderConfiguration, GradientAccumulationPlugin, set_seed
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from modeling_musicvae import MusicVAEConfig, MusicVAEModel
from training.arguments import Arguments, TrainingArguments, parse_arguments
from training.checkpoints import (
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
from training.data import augment, fingerprint, load_data
from training.evaluation import evaluate, loss_terms
from training.interruption import Interruption
from training.model_folder import ModelFolder
from training.publishing import Publisher, open_repository

LOG_EVERY_STEPS = 10


def main() -> None:
    arguments = parse_arguments(sys.argv[1:], __doc__.splitlines()[0])
    training = arguments.training
    accelerator = Accelerator(
        mixed_precision=training.mixed_precision,
        log_with="tensorboard",
        project_dir=training.output_dir,
        dataloader_config=DataLoaderConfiguration(split_batches=True),
        gradient_accumulation_plugin=GradientAccumulationPlugin(
            num_steps=training.gradient_accumulation_steps,
            sync_with_dataloader=False,
        ),
    )
    training.mixed_precision = accelerator.mixed_precision  # the launcher's, if none was given
    use_all_cores(accelerator)
    prepare_output_dir(accelerator, training)
    publishing = arguments.hub.push_to_hub and accelerator.is_main_process
    if publishing:
        arguments.hub.hub_model_id = open_repository(arguments.hub, Path(training.output_dir))
    train_loader, eval_loader, processor = load_data(accelerator, arguments)
    run = describe_run(arguments, accelerator.num_processes, fingerprint(train_loader.dataset))
    checkpoint = find_checkpoint(training, run)

    set_seed(training.seed)
    config = MusicVAEConfig(**asdict(arguments.architecture))
    model = MusicVAEModel(config)
    check_space(Path(training.output_dir), model)
    optimizer = torch.optim.Adam(model.parameters(), lr=training.learning_rate, fused=True)
    set_seed(training.seed, device_specific=True)  # ranks draw different latents
    order = train_loader.sampler
    model, optimizer, train_loader, eval_loader = accelerator.prepare(
        model, optimizer, train_loader, eval_loader
    )
    accelerator.init_trackers("logs")

    progress = load_checkpoint(accelerator, checkpoint)
    order.position = progress.step * training.batch_size
    if training.max_steps is None:
        num_windows = training.num_epochs * len(train_loader.dataset)
        training.max_steps = -(-num_windows // training.batch_size)
    if progress.step > training.max_steps:
        raise ValueError(
            f"max_steps: found {training.max_steps}, expected at least the {progress.step} that "
            "the checkpoint has"
        )
    describe(accelerator, arguments, model, train_loader, progress)
    model_folder = ModelFolder(
        arguments, config, processor, train_loader.dataset, eval_loader.dataset
    )
    publisher = Publisher(arguments.hub, training, model_folder.write) if publishing else None
    train(
        accelerator,
        arguments,
        model,
        optimizer,
        train_loader,
        eval_loader,
        progress,
        run,
        publisher,
    )
    accelerator.end_training()
    if accelerator.is_main_process:
        model_folder.export(progress)
    if publisher:
        publisher.finish(progress)


def use_all_cores(accelerator: Accelerator) -> None:
    """On CPUs, shares the cores among the processes; the launcher would give each one thread."""
    if accelerator.device.type == "cpu":
        local_processes = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
        torch.set_num_threads(max(1, os.cpu_count() // local_processes))


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


def train(
    accelerator: Accelerator,
    arguments: Arguments,
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    train_loader: DataLoader,
    eval_loader: DataLoader,
    progress: Progress,
    run: Run,
    publisher: Publisher | None,
) -> None:
    """Trains from where `progress` stands to the last step."""
    training = arguments.training
    skipped_in_a_row = 0
    interruption = Interruption(accelerator)
    bar = tqdm(
        total=training.max_steps,
        initial=progress.step,
        unit="step",
        disable=not accelerator.is_main_process,
    )
    model.train()
    started, seconds_before = time.perf_counter(), progress.seconds
    window_start, window_sequences = started, 0
    for batch in train_loader:
        if progress.step >= training.max_steps:
            break
        window_sequences += len(batch["piano_roll"]) * accelerator.num_processes
        with accelerator.accumulate(model):
            output = model(*augment(batch, arguments.data), step=progress.step)
            accelerator.backward(output.loss)
        if not accelerator.sync_gradients:
            continue
        if take_step(accelerator, training, model, optimizer, progress.step):
            skipped_in_a_row = 0
        else:
            progress.skipped_steps += 1
            skipped_in_a_row += 1
        progress.step += 1
        progress.seconds = seconds_before + time.perf_counter() - started
        bar.update()

        if progress.step % LOG_EVERY_STEPS == 0:
            now = time.perf_counter()
            log_step(accelerator, bar, output, window_sequences / (now - window_start), progress)
            window_start, window_sequences = now, 0

        if skipped_in_a_row > training.max_skipped_steps:
            raise diverged(training, progress, skipped_in_a_row)

        last = progress.step == training.max_steps
        interrupted = not last and interruption.happened()
        evaluating = last or progress.step % training.eval_steps == 0
        saving = last or interrupted or progress.step % training.save_steps == 0
        if evaluating:
            saving |= evaluate_and_log(accelerator, training, model, eval_loader, progress)
        if saving:
            save_checkpoint(accelerator, training, progress, run)
            if publisher and not interrupted:
                publisher.publish(progress)
        if interrupted:
            bar.close()
            interruption.exit(training)
        if evaluating or saving:  # neither is training
            window_start, window_sequences = time.perf_counter(), 0
    bar.close()
    interruption.end()


def take_step(
    accelerator: Accelerator,
    training: TrainingArguments,
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    step: int,
) -> bool:
    """Updates the weights; False, and the weights stay, if the gradient is not finite.

    Where the loss is not finite, neither is its gradient. It is averaged over all processes, so
    they all do the same.
    """
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(training, step)
    norm = accelerator.clip_grad_norm_(model.parameters(), training.max_grad_norm)
    finite = math.isfinite(norm)
    if finite or accelerator.scaler is not None:  # a scaler skips by itself, and learns from it
        optimizer.step()
    optimizer.zero_grad()
    return finite


def diverged(training: TrainingArguments, progress: Progress, num_steps: int) -> FloatingPointError:
    whole = checkpoints(Path(training.output_dir))
    return FloatingPointError(
        f"step {progress.step}: found {num_steps} steps in a row whose gradient is not finite, "
        f"expected at most {training.max_skipped_steps}. The last good checkpoint is "
        f"{whole[-1] if whole else 'none'}; a lower --learning_rate may help"
    )


def learning_rate(training: TrainingArguments, step: int) -> float:
    """Exponential decay towards the minimum, as the original has it."""
    decayed = (training.learning_rate - training.min_learning_rate) * (
        training.learning_rate_decay**step
    )
    return decayed + training.min_learning_rate


def log_step(
    accelerator: Accelerator,
    bar: tqdm,
    output: Any,
    sequences_per_second: float,
    progress: Progress,
) -> None:
    scalars = {
        "train/loss": output.loss.item(),
        "train/reconstruction_loss": output.reconstruction_loss.mean().item(),
        **{f"train/{name}": value.mean().item() for name, value in loss_terms(output).items()},
        "train/kl_bits": output.kl_divergence.mean().item() / math.log(2),
        "train/sequences_per_second": sequences_per_second,
        "train/skipped_steps": progress.skipped_steps,
    }
    accelerator.log(scalars, step=progress.step)
    bar.set_postfix_str(
        f"loss {scalars['train/loss']:.1f}, KL {scalars['train/kl_bits']:.1f} bits, "
        f"{sequences_per_second:.0f} sequences/s"
        + (f", {progress.skipped_steps} steps skipped" if progress.skipped_steps else "")
    )


def evaluate_and_log(
    accelerator: Accelerator,
    training: TrainingArguments,
    model: torch.nn.Module,
    eval_loader: DataLoader,
    progress: Progress,
) -> bool:
    """Evaluates and shows the result; True if it is the best so far."""
    metrics = evaluate(accelerator, model, eval_loader, training.seed)
    accelerator.log({f"validation/{name}": value for name, value in metrics.items()}, progress.step)
    if accelerator.is_main_process:
        values = ", ".join(f"{name} {value:.4g}" for name, value in metrics.items())
        tqdm.write(f"step {progress.step}: validation {values}")
    improved = metrics["loss"] < progress.best_metrics.get("loss", math.inf)
    if improved:
        progress.best_step, progress.best_metrics = progress.step, metrics
    return improved


def describe(
    accelerator: Accelerator,
    arguments: Arguments,
    model: torch.nn.Module,
    train_loader: DataLoader,
    progress: Progress,
) -> None:
    """Says what is trained, on what, with what, and where it goes."""
    training, config = arguments.training, accelerator.unwrap_model(model).config
    parameters = sum(parameter.numel() for parameter in model.parameters())
    windows = len(train_loader.dataset)
    epoch_steps = windows / training.batch_size
    accelerator.print(
        f"Model      {config.decoder}, {config.bars} bars, {parameters / 1e6:.1f} million "
        f"parameters\n"
        f"Data       {arguments.data.data}, {windows} training windows, {epoch_steps:.1f} "
        f"steps an epoch\n"
        f"Training   to step {training.max_steps} from {progress.step}, {training.batch_size} "
        f"sequences a step, {accelerator.num_processes} process(es) on {accelerator.device.type}, "
        f"mixed precision {accelerator.mixed_precision}\n"
        f"Output     {training.output_dir} (tensorboard --logdir {training.output_dir}/logs)"
    )
    if arguments.hub.push_to_hub:
        accelerator.print(f"Hub        {arguments.hub.hub_model_id} ({arguments.hub.hub_strategy})")


if __name__ == "__main__":
    main()
