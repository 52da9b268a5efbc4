"""The folder of a trained model: model, processor, card, new MIDI files, their picture."""

import os
import platform
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import datasets
import numpy as np
import torch
from huggingface_hub import EvalResult, ModelCard, ModelCardData
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch.utils.data import DataLoader

from modeling_musicvae import MusicVAEConfig, MusicVAEModel
from musicvae.atomic import whole_files
from musicvae.paths import card_template
from processing import MusicVAEProcessor
from processing.drum_kit import DRUM_NAMES
from processing.picture import draw_piano_rolls

from ..data.batches import collate, num_windows, train_windows
from ..data.windows import MIDI_DATA
from ..tasks import sample_temperature, task_of
from .arguments import Arguments
from .checkpoints import Progress, brief, checkpoint_weights
from .latents import fit_latents

MODEL_FILES = (
    "config.json",
    "model.safetensors",
    "processor_config.json",
    "*.py",
    "README.md",
    "samples/*",
    "samples.png",
    "logs/**/*",
)

# Those of datasets of windows are their own.
DATA_NAMES = {
    "groove": "Groove MIDI Dataset",
    "midi_folder": "a folder of MIDI files",
    "demo": "demo grooves",
}


class ModelFolderError(ValueError):
    """A trained model that cannot be written; its checkpoint stays."""


@dataclass
class ModelFolder:
    """Writes what belongs to a model of a run; `MODEL_FILES` are its files."""

    arguments: Arguments
    config: MusicVAEConfig
    processor: MusicVAEProcessor
    train_loader: DataLoader
    eval_windows: datasets.Dataset

    def write(self, folder: Path, weights: Path, step: int, progress: Progress) -> None:
        """Writes a model with processor, code, card, new MIDI files and their picture.

        No random number of training is used up, so that it can go on in another thread.

        Args:
            folder: where to.
            weights: the file that has them.
            step: after which they were saved.
            progress: of the run.
        """
        model = load_model(self.config, weights)
        fit_latents(model, train_windows(self.train_loader))
        model.save_pretrained(folder)
        self.processor.save_pretrained(folder)
        training = self.arguments.training
        write_samples(
            model, self.processor, self.eval_windows, folder, training.num_samples, training.seed
        )
        write_model_card(
            self.arguments, model, step, progress, num_windows(self.train_loader), folder
        )

    def export(self, progress: Progress) -> None:
        """Writes the best model of the run into its output folder.

        Raises:
            ModelFolderError: there is no room for it, say; nothing of it stays behind.
        """
        output_dir = Path(self.arguments.training.output_dir)
        kind, step = "best", progress.best_step
        if not checkpoint_weights(output_dir, step).is_file():
            print(f"Gone       the best checkpoint, of step {step}: the last one is exported")
            kind, step = "last", progress.step
        weights = checkpoint_weights(output_dir, step)
        try:
            with whole_files(output_dir, "model") as folder:
                self.write(folder, weights, step, progress)
        except (OSError, SafetensorError) as error:
            raise ModelFolderError(
                f"{output_dir}: the model could not be written: {brief(error)}. Its weights are "
                f"{weights}; --resume_from_checkpoint latest writes it"
            ) from error
        print(f"Model      {output_dir} ({kind} of step {step})")
        print(f"New drums  {output_dir}/samples/*.mid, pictured in {output_dir}/samples.png")


def model_files(folder: Path) -> list[Path]:
    """The files in a folder that belong to its model, as paths in it."""
    found = (path for pattern in MODEL_FILES for path in folder.glob(pattern))
    return sorted(path.relative_to(folder) for path in found if path.is_file())


def load_model(config: MusicVAEConfig, weights: Path) -> MusicVAEModel:
    with torch.device("meta"):  # no weights are drawn
        model = MusicVAEModel(deepcopy(config))  # fitting writes into it
    model.load_state_dict(load_file(weights), assign=True)
    return model.eval()


def write_samples(
    model: MusicVAEModel,
    processor: MusicVAEProcessor,
    windows: datasets.Dataset,
    folder: Path,
    num_samples: int,
    seed: int,
) -> None:
    """Writes new drums; those of a conditional model go with some of the windows."""
    generator = torch.Generator().manual_seed(seed)
    index = np.linspace(0, len(windows) - 1, num_samples).astype(int)
    drums = collate([windows[int(i)] for i in index])
    conditioning = model.conditioning(drums["piano_roll"], drums["timing"])
    temperature = sample_temperature(model.config)
    drums = model.sample(num_samples, temperature, generator, *conditioning)
    samples = Path(folder, "samples")
    samples.mkdir()
    for number, midi in enumerate(processor.batch_decode(drums.piano_roll, drums.timing), 1):
        midi.write(str(samples / f"sample-{number}.mid"))
    draw_piano_rolls(
        drums.piano_roll.numpy(),
        drums.timing.numpy(),
        folder / "samples.png",
        titles=[f"sample {number}" for number in range(1, num_samples + 1)],
        steps_per_bar=processor.steps_per_bar,
    )


def write_model_card(
    arguments: Arguments,
    model: MusicVAEModel,
    step: int,
    progress: Progress,
    windows: int | None,
    folder: Path,
) -> None:
    """Fills in model_card.md with what was measured; only the best model has metrics."""
    metrics = progress.best_metrics if step == progress.best_step else {}
    card = ModelCard.from_template(
        describe_for_the_hub(arguments, metrics),
        template_path=str(card_template()),
        model=model.config,
        task=task_of(model.config),
        added_drums=", ".join(DRUM_NAMES[drum] for drum in model.config.removed_drums),
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        data=arguments.data.data,
        repository=arguments.data.data if is_repository(arguments.data.data) else None,
        hop_bars=arguments.data.hop_bars,
        windows=windows,
        training=arguments.training,
        command=arguments.command,
        step=step,
        progress=progress,
        metrics=metrics,
        machine=machine(),
    )
    card.save(folder / "README.md")


def describe_for_the_hub(arguments: Arguments, metrics: dict[str, float]) -> ModelCardData:
    """The part of a card that the Hub reads."""
    data = arguments.data.data
    results = [
        EvalResult(
            task_type="other",
            dataset_type=data,
            dataset_name=DATA_NAMES.get(data, data),
            dataset_split="validation",
            metric_type=name,
            metric_name=name.replace("_", " "),
            metric_value=value,
        )
        for name, value in metrics.items()
    ]
    return ModelCardData(
        license="apache-2.0",
        library_name="transformers",
        pipeline_tag="other",
        tags=["music", "drums", "midi", "vae"],
        datasets=[data] if data == "groove" or is_repository(data) else None,
        metrics=list(metrics) or None,
        model_name="MusicVAE",
        eval_results=results or None,
    )


def is_repository(data: str) -> bool:
    """True for the name of a dataset on the Hub."""
    return data not in MIDI_DATA and not Path(data).is_dir()


def machine() -> str:
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine()
    return (
        f"{device}, {os.cpu_count()} CPU cores, {platform.system()}, Python "
        f"{platform.python_version()}, torch {torch.__version__}"
    )
