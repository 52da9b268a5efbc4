"""The folder that a training run leaves: model, processor, card, new MIDI files, their picture."""

import os
import platform
import tempfile
from pathlib import Path

import datasets
import numpy as np
import torch
from huggingface_hub import ModelCard, ModelCardData
from safetensors.torch import load_file

from modeling_musicvae import MusicVAEConfig, MusicVAEModel
from processing import MusicVAEProcessor
from processing.drum_kit import DRUM_NAMES
from processing.picture import draw_piano_rolls

from .arguments import Arguments, TrainingArguments
from .checkpoints import Progress
from .data import batches_of, collate

# What a user does with a model of each input transform, but for "none".
VERBS = {
    "humanize": "humanize(windows.piano_roll)",
    "tap": "tap_to_drums(windows.piano_roll, windows.timing)",
    "tap_fixed_velocity": "tap_to_drums(windows.piano_roll, windows.timing)",
    "remove_drums": "add_drums(windows.piano_roll, windows.timing)",
}


def export(
    arguments: Arguments,
    config: MusicVAEConfig,
    processor: MusicVAEProcessor,
    progress: Progress,
    train_windows: datasets.Dataset,
    eval_windows: datasets.Dataset,
) -> None:
    """Writes the best model with processor, card, new MIDI files and their picture."""
    output_dir = Path(arguments.training.output_dir)
    model = best_model(output_dir, config, progress)
    model.fit_attribute_vectors(batches_of(train_windows))
    with tempfile.TemporaryDirectory(dir=output_dir) as temporary:
        folder = Path(temporary)
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
        write_samples(model, processor, eval_windows, folder, arguments.training)
        write_model_card(arguments, model, progress, len(train_windows), folder)
        move_into(folder, output_dir)
    print(f"Model      {output_dir} (best of step {progress.best_step})")
    print(f"New drums  {output_dir}/samples/*.mid, pictured in {output_dir}/samples.png")


def best_model(output_dir: Path, config: MusicVAEConfig, progress: Progress) -> MusicVAEModel:
    model = MusicVAEModel(config)
    checkpoint = Path(output_dir, "checkpoints", f"checkpoint-{progress.best_step}")
    model.load_state_dict(load_file(Path(checkpoint, "model.safetensors")))
    return model.eval()


def write_samples(
    model: MusicVAEModel,
    processor: MusicVAEProcessor,
    eval_windows: datasets.Dataset,
    folder: Path,
    training: TrainingArguments,
) -> None:
    """New drums; of a model that is told the hits, for those of some validation windows."""
    generator = torch.Generator().manual_seed(training.seed)
    score = None
    if model.config.hits_as_controls:
        index = np.linspace(0, len(eval_windows) - 1, training.num_samples).astype(int)
        score = collate([eval_windows[int(i)] for i in index])["piano_roll"]
    drums = model.sample(training.num_samples, generator=generator, score=score)
    samples = Path(folder, "samples")
    samples.mkdir()
    for number, midi in enumerate(processor.batch_decode(drums.piano_roll, drums.timing), 1):
        midi.write(str(samples / f"sample-{number}.mid"))
    draw_piano_rolls(
        drums.piano_roll.numpy(),
        drums.timing.numpy(),
        folder / "samples.png",
        titles=[f"sample {number}" for number in range(1, training.num_samples + 1)],
        steps_per_bar=processor.steps_per_bar,
    )


def write_model_card(
    arguments: Arguments, model: MusicVAEModel, progress: Progress, windows: int, folder: Path
) -> None:
    """Fills in model_card.md with what was measured."""
    card_data = ModelCardData(
        license="apache-2.0",
        library_name="transformers",
        tags=["music", "drums", "midi", "vae"],
    )
    card = ModelCard.from_template(
        card_data,
        template_path=str(Path(__file__).parents[1] / "model_card.md"),
        model=model.config,
        verb=VERBS.get(model.config.input_transform),
        added_drums=", ".join(DRUM_NAMES[drum] for drum in model.config.removed_drums),
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        data=arguments.data.data,
        hop_bars=arguments.data.hop_bars,
        windows=windows,
        training=arguments.training,
        command=arguments.command,
        progress=progress,
        metrics=progress.best_metrics,
        machine=machine(),
    )
    card.save(folder / "README.md")


def machine() -> str:
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine()
    return (
        f"{device}, {os.cpu_count()} CPU cores, {platform.system()}, Python "
        f"{platform.python_version()}, torch {torch.__version__}"
    )


def move_into(source: Path, target: Path) -> None:
    """Moves every file to its place, each in one rename."""
    for path in sorted(source.rglob("*")):
        place = target / path.relative_to(source)
        if path.is_dir():
            place.mkdir(exist_ok=True)
        else:
            path.replace(place)
