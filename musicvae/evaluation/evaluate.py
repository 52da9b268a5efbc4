"""The evaluation of a trained model on a split of a dataset: figures, tables and plots.

Everything is measured on windows that do not overlap, with 95 % intervals by a bootstrap over
recordings, next to baselines.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from modeling_musicvae import MusicVAEModel
from processing.counted import counted

from ..atomic import replaced
from ..tasks import sample_temperature
from .attributes import measure_attribute_vectors
from .card import PICTURES
from .interpolation import measure_interpolation
from .plots import draw_all
from .reconstruction import measure_reconstruction
from .report import Measures, facts_of, write_report
from .samples import draw_samples, measure_samples
from .style_classifier import measure_styles
from .transformations import measure_transformation
from .windows import Windows

NUM_PAIRS = 200


@dataclass(frozen=True)
class Evaluation:
    """The evaluation of a model; models and windows are loaded when they are first needed.

    Attributes:
        place: the model's folder, or its name on the Hub.
        data, data_dir: see `load_windows`.
        split: that is measured on.
        asked_parts: of `choose_parts`.
        batch_size: windows in a batch.
        num_samples: new drums to draw.
        asked_temperature: of new drums; if not given, see `sample_temperature`.
        seed: of everything random.
    """

    place: str | os.PathLike
    data: str = "groove"
    data_dir: str | os.PathLike | None = None
    split: str = "test"
    asked_parts: Sequence[str] | None = None
    batch_size: int = 64
    num_samples: int = 1000
    asked_temperature: float | None = None
    seed: int = 0

    def write(self, output_dir: Path, name: str, command: str) -> None:
        """Measures the model, and writes report and plots.

        Args:
            output_dir: where to.
            name: of the model, in the report.
            command: in the report, that makes the same.

        Raises:
            ValueError: a part does not apply to the model; or see `load_windows`.
        """
        parts = self.parts
        facts = self.facts(name, command)
        output_dir.mkdir(parents=True, exist_ok=True)
        print(f"Model    {self.place}")
        print(
            f"Windows  {facts['windows']}, from {counted(facts['recordings'], 'recording')} of the "
            f"{self.split} split"
        )
        names = [name for part in parts for name in PICTURES.get(part, {})]
        earlier = replaced(*map(output_dir.joinpath, ["evaluation.json", "evaluation.md", *names]))
        print(f"Writes   {output_dir}/evaluation.json, evaluation.md and plots{earlier}")
        measures = {}
        with tqdm(total=len(parts) + 1) as bar:
            for part in parts:
                bar.set_description(part)
                measures[part] = self.measure(part)
                bar.update()
            bar.set_description("plots")
            samples = self.samples if "samples" in parts else None
            draw_all(parts, self.model, self.windows, samples, output_dir, self.seed)
            bar.update()
        write_report(facts, measures, output_dir)

    def measure(self, part: str) -> Measures:
        """One of the parts, see `choose_parts`."""
        model, windows, seed = self.model, self.windows, self.seed
        match part:
            case "reconstruction":
                return measure_reconstruction(model, windows, self.train, self.batch_size, seed)
            case "transformation":
                return measure_transformation(model, windows, self.train, self.batch_size, seed)
            case "samples":
                others = self.other_windows
                return measure_samples(
                    self.samples, windows, others, self.train, model.config, seed
                )
            case "interpolation":
                return measure_interpolation(model, windows, NUM_PAIRS, seed)
            case "attributes":
                return measure_attribute_vectors(model, windows, seed)
            case "styles":
                return measure_styles(model, windows, self.train, self.temperature, seed)
            case _:
                raise ValueError(f"part: found {part}, expected one of {', '.join(self.parts)}")

    def facts(self, name: str, command: str) -> dict[str, Any]:
        """The head of the report: the model, the data and the settings."""
        return {
            "model": name,
            **facts_of(self.model),
            "command": command,
            "data": self.data,
            "split": self.split,
            "other_split": other_split(self.split),
            "windows": len(self.windows),
            "recordings": len(self.windows.file.unique()),
            "samples": self.num_samples,
            "temperature": self.temperature,
            "seed": self.seed,
        }

    @property
    def parts(self) -> list[str]:
        return choose_parts(self.model, self.asked_parts)

    @property
    def temperature(self) -> float:
        """Of the new drums."""
        if self.asked_temperature is None:
            return sample_temperature(self.model.config)
        return self.asked_temperature

    @cached_property
    def model(self) -> MusicVAEModel:
        return MusicVAEModel.from_pretrained(self.place).eval()

    @cached_property
    def windows(self) -> Windows:
        """Those of the split, without overlap."""
        return self.load(self.split, self.model.config.bars)

    @cached_property
    def other_windows(self) -> Windows:
        """Those of another split, without overlap."""
        return self.load(other_split(self.split), self.model.config.bars)

    @cached_property
    def train(self) -> Windows:
        """Those of the training split, which overlap."""
        return self.load("train", 1)

    @cached_property
    def samples(self) -> Windows:
        """New drums."""
        return draw_samples(self.model, self.windows, self.num_samples, self.temperature, self.seed)

    def load(self, split: str, hop_bars: int) -> Windows:
        config = self.model.config
        return Windows.load(
            split,
            data=self.data,
            data_dir=self.data_dir,
            bars=config.bars,
            steps_per_bar=config.steps_per_bar,
            hop_bars=hop_bars,
        )


def choose_parts(model: MusicVAEModel, asked_for: Sequence[str] | None) -> list[str]:
    """The parts of the evaluation that apply to a model, or those of them that are asked for.

    Raises:
        ValueError: a part that is asked for does not apply.
    """
    config = model.config
    applicable = {
        "reconstruction": True,
        "transformation": config.input_transform != "none",
        "samples": True,
        "interpolation": not config.is_conditioned,
        "attributes": bool(model.attribute_vectors.any()),
        "styles": bool(config.styles),
    }
    parts = [part for part, applies in applicable.items() if applies]
    for part in asked_for or ():
        if part not in parts:
            raise ValueError(
                f"parts: found {part}, expected some of those that apply to this model: "
                f"{', '.join(parts)}"
            )
    return [part for part in parts if asked_for is None or part in asked_for]


def other_split(split: str) -> str:
    """The split whose drummers are compared with those of `split`."""
    return "train" if split == "validation" else "validation"
