"""Measures a trained MusicVAE on a split of a dataset, and writes figures, tables and pictures.

Everything is measured on windows that do not overlap, with 95 % intervals by a bootstrap over
recordings, beside trivial players and other baselines.
"""

from argparse import Namespace
from functools import partial

from tqdm.auto import tqdm

from modeling_musicvae import MusicVAEModel
from musicvae.evaluation.attributes import measure_attribute_vectors
from musicvae.evaluation.interpolation import measure_interpolation
from musicvae.evaluation.plots import draw_all
from musicvae.evaluation.reconstruction import measure_reconstruction
from musicvae.evaluation.report import Measures, facts_of, write_report
from musicvae.evaluation.samples import draw_samples, measure_samples
from musicvae.evaluation.transformations import measure_transformation
from musicvae.evaluation.windows import Windows, load_windows

NUM_PAIRS = 200


def evaluate(arguments: Namespace, name: str, command: str) -> None:
    """Measures a model and writes the report.

    Args:
        arguments: those of `musicvae evaluate`.
        name: of the model, in the report.
        command: in the report, that makes the same.

    Raises:
        ValueError: a part has no meaning for the model; or see `load_windows`.
    """
    output_dir, split, seed = arguments.output_dir, arguments.split, arguments.seed
    model = MusicVAEModel.from_pretrained(arguments.model).eval()
    parts = choose_parts(model, arguments.parts)
    load = partial(load_windows, arguments.data, arguments.data_dir, config=model.config)
    windows = load(split, hop_bars=model.config.bars)
    other_windows = load(other_split(split), hop_bars=model.config.bars)
    train = load("train", hop_bars=1)
    output_dir.mkdir(parents=True, exist_ok=True)
    num_files = len(windows.file.unique())
    print(f"Model    {arguments.model}")
    print(f"Windows  {len(windows)}, from {num_files} recordings of the {split} split")
    print(f"Writes   {output_dir}/evaluation.json, evaluation.md and pictures")

    samples = None
    if "samples" in parts:
        samples = draw_samples(model, windows, arguments.num_samples, seed)
    measures = {}
    with tqdm(total=len(parts) + 1) as bar:
        for part in parts:
            bar.set_description(part)
            measures[part] = measure(
                part, model, windows, other_windows, train, samples, arguments.batch_size, seed
            )
            bar.update()
        bar.set_description("pictures")
        draw_all(parts, model, windows, samples, output_dir, seed)
        bar.update()
    facts = {
        "model": name,
        **facts_of(model),
        "command": command,
        "data": arguments.data,
        "split": split,
        "other_split": other_split(split),
        "windows": len(windows),
        "recordings": num_files,
        "samples": arguments.num_samples,
        "seed": seed,
    }
    write_report(facts, measures, output_dir)


def choose_parts(model: MusicVAEModel, asked_for: list[str] | None) -> list[str]:
    """What is measured of a model of this kind, or of that what is asked for."""
    config = model.config
    applicable = {
        "reconstruction": True,
        "transformation": config.input_transform != "none",
        "samples": True,
        "interpolation": not config.is_conditioned,
        "attributes": model.attribute_vectors.any(),
    }
    parts = [part for part, applies in applicable.items() if applies]
    for part in asked_for or ():
        if part not in parts:
            raise ValueError(
                f"parts: found {part}, expected some of what this model can be measured in: "
                f"{', '.join(parts)}"
            )
    return [part for part in parts if asked_for is None or part in asked_for]


def measure(
    part: str,
    model: MusicVAEModel,
    windows: Windows,
    other_windows: Windows,
    train: Windows,
    samples: Windows | None,
    batch_size: int,
    seed: int,
) -> Measures:
    match part:
        case "reconstruction":
            return measure_reconstruction(model, windows, train, batch_size, seed)
        case "transformation":
            return measure_transformation(model, windows, train, batch_size, seed)
        case "samples":
            return measure_samples(samples, windows, other_windows, train, model.config, seed)
        case "interpolation":
            return measure_interpolation(model, windows, NUM_PAIRS, seed)
        case "attributes":
            return measure_attribute_vectors(model, windows, seed)


def other_split(split: str) -> str:
    """The split whose drummers are compared with those of `split`."""
    return "train" if split == "validation" else "validation"
