"""How much of a style is heard in drums: a classifier that is trained on real ones."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from modeling_musicvae import MusicVAEModel
from modeling_musicvae.drum_attributes import measure_attributes

from ..data.windows import main_style
from .bootstrap import Estimate, interval
from .windows import Windows

NUM_SAMPLES = 100  # new grooves of each style
ITERATIONS, WEIGHT_DECAY = 100, 1e-3


@dataclass
class StyleClassifier:
    """Softmax regression from features of windows to styles.

    Attributes:
        styles: names.
        steps_per_bar: steps in a bar.
        mean, std: float32 (features,), of the training windows.
        weight: float32 (features + 1, styles).
    """

    styles: list[str]
    steps_per_bar: int
    mean: torch.Tensor
    std: torch.Tensor
    weight: torch.Tensor

    @classmethod
    def fit(cls, train: Windows, styles: list[str], steps_per_bar: int) -> "StyleClassifier":
        """Fits a classifier in which each style counts alike, however frequent it is.

        Args:
            train: windows; those of other styles are left out.
            styles: names; each has some windows.
            steps_per_bar: steps in a bar.
        """
        labels = style_numbers(train.style, styles)
        features = style_features(train, steps_per_bar)[labels >= 0]
        target = labels[labels >= 0]
        mean, std = features.mean(0), features.std(0).clamp(min=1e-3)
        inputs = F.pad((features - mean) / std, (0, 1), value=1)
        weight = torch.zeros(inputs.shape[1], len(styles), requires_grad=True)
        balance = 1 / torch.bincount(target, minlength=len(styles))
        optimizer = torch.optim.LBFGS([weight], max_iter=ITERATIONS, line_search_fn="strong_wolfe")

        def loss() -> torch.Tensor:
            optimizer.zero_grad()
            value = F.cross_entropy(inputs @ weight, target, balance)
            value = value + WEIGHT_DECAY * weight[:-1].square().sum()
            value.backward()
            return value

        optimizer.step(loss)
        return cls(styles, steps_per_bar, mean, std, weight.detach())

    def classify(self, windows: Windows) -> torch.Tensor:
        """The most probable style of each window, int64 (windows,), its number in `styles`."""
        features = style_features(windows, self.steps_per_bar)
        return (F.pad((features - self.mean) / self.std, (0, 1), value=1) @ self.weight).argmax(1)


def style_features(windows: Windows, steps_per_bar: int) -> torch.Tensor:
    """Inputs of the classifier: of each drum at each step of a bar the share of hits and the mean
    velocity, where it is silent 0, over the bars of a window; and its attributes.

    Returns:
        float32 (windows, features).
    """
    bars = windows.piano_roll.float().unflatten(2, (-1, steps_per_bar)) / 127
    attributes = measure_attributes(windows.piano_roll, windows.timing, steps_per_bar)
    hits = (bars > 0).float()
    return torch.cat([hits.mean(2).flatten(1), bars.mean(2).flatten(1), attributes], 1)


def style_numbers(labels: list[str], styles: list[str]) -> torch.Tensor:
    """The number of each window's main style, int64 (windows,); -1: none of `styles`."""
    numbers = {style: number for number, style in enumerate(styles)}
    return torch.tensor([numbers.get(main_style(label), -1) for label in labels])


@torch.no_grad()
def draw_style_samples(
    model: MusicVAEModel, num_samples: int, temperature: float, seed: int
) -> Windows:
    """New drums of each of the model's styles, so many of each."""
    generator = torch.Generator().manual_seed(seed)
    styles = list(model.config.styles)
    drums = [model.sample(num_samples, temperature, generator, style=style) for style in styles]
    number = len(styles) * num_samples
    return Windows(
        torch.cat([each.piano_roll for each in drums]),
        torch.cat([each.timing for each in drums]),
        torch.full((number,), 120.0),
        list(np.repeat(styles, num_samples)),
        torch.arange(number),
    )


def measure_styles(
    model: MusicVAEModel, windows: Windows, train: Windows, temperature: float, seed: int
) -> dict[str, dict[str, Estimate]]:
    """The share of drums of each style that the classifier, trained on `train`, recognises.

    Args:
        model: with `config.styles`.
        windows: of the split.
        train: windows of the training split.
        temperature: of the new drums.
        seed: of draws and intervals.

    Returns:
        For new drums ("samples") and for those of the split ("played"): the share of each style,
        and of "all_styles", of which each counts alike. Styles that the split has not are left out.
    """
    styles = list(model.config.styles)
    classifier = StyleClassifier.fit(train, styles, model.config.steps_per_bar)
    samples = draw_style_samples(model, NUM_SAMPLES, temperature, seed)
    measures = {}
    for name, drums in (("samples", samples), ("played", windows)):
        target = style_numbers(drums.style, styles)
        right = (classifier.classify(drums) == target).double().numpy()
        measures[name] = recognised(right, target.numpy(), drums.file.numpy(), styles, seed)
    return measures


def recognised(
    right: np.ndarray, target: np.ndarray, files: np.ndarray, styles: list[str], seed: int
) -> dict[str, Estimate]:
    """See `measure_styles`; arrays (windows,), the target -1 where a window has none of them."""
    counts = np.bincount(target[target >= 0], minlength=len(styles))
    shares = {}
    weights = np.where(target >= 0, 1 / np.maximum(counts, 1)[target], 0)
    shares["all_styles"] = interval(right * weights, weights, files, seed)
    for number, style in enumerate(styles):
        own = target == number
        if own.any():
            shares[style] = interval(right[own], None, files[own], seed)
    return shares
