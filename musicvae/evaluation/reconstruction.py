"""How well a model reconstructs drums, and what it costs."""

import math

import numpy as np
import torch

from modeling_musicvae import MusicVAEModel
from modeling_musicvae.modeling_musicvae import MusicVAEOutput
from musicvae.evaluation.metrics import forward, loss_terms

from . import baselines
from .bootstrap import Estimate, difference, interval
from .drum_metrics import Estimates, join, measure_ways
from .windows import Windows

ACTIVE_VARIANCE = 0.01
NUM_TRAINING_WINDOWS = 500


@torch.no_grad()
def measure_reconstruction(
    model: MusicVAEModel, windows: Windows, train: Windows, batch_size: int, seed: int
) -> dict[str, Estimates | dict[str, Estimates]]:
    """The terms of the ELBO, and drums that are made in three ways, next to baselines.

    The ways are teacher_forced, greedy given the ground-truth previous steps; sampled, drawn at
    temperature 1 from a latent that is drawn from the posterior; and greedy, from the posterior
    mean. Baselines are for a model that has to find the hits in drums that it sees whole.

    Args:
        model: to be measured.
        windows: to be reconstructed.
        train: windows of the training split, for the baselines.
        batch_size: windows in a batch.
        seed: of latents, draws and intervals.

    Returns:
        objective: elbo, reconstruction_loss and its terms in nats per sequence, kl_bits in bits per
        sequence, and active_latents, the latent dimensions whose posterior mean varies over windows
        by more than 0.01 (Burda, Grosse and Salakhutdinov 2015, arXiv 1509.00519).
        generalization: see `measure_generalization`. The rest is that of `measure_ways`.
    """
    generator, config = torch.Generator().manual_seed(seed), model.config
    batches, means, files = [], [], windows.file.numpy()
    drums: dict[str, list] = {"teacher_forced": [], "sampled": [], "greedy": []}
    for batch in windows.batches(batch_size):
        output = forward(model, batch.piano_roll, batch.timing, generator)
        score, conditioning = model.conditioning(batch.piano_roll, batch.timing)
        drums["teacher_forced"].append(model.greedy(output.logits, score))
        drums["sampled"].append(model.decode(output.latents, 1.0, generator, score, conditioning))
        drums["greedy"].append(model.decode(output.mean, 0.0, None, score, conditioning))
        batches.append(objective(output))
        means.append(output.mean)
    ways = {way: join(made, windows) for way, made in drums.items()}
    if config.input_transform == "none" and not config.hits_as_controls:
        for baseline in (baselines.silence, baselines.most_frequent, baselines.nearest):
            ways[baseline.__name__] = baseline(train, windows)
    terms = {name: np.concatenate([each[name] for each in batches]) for name in batches[0]}
    estimates = {name: interval(values, None, files, seed) for name, values in terms.items()}
    estimates["active_latents"] = Estimate(num_active(torch.cat(means)))
    return {
        "objective": estimates,
        "generalization": measure_generalization(model, terms, windows, train, batch_size, seed),
        **measure_ways(ways, windows, config, seed),
    }


@torch.no_grad()
def measure_generalization(
    model: MusicVAEModel,
    terms: dict[str, np.ndarray],
    windows: Windows,
    train: Windows,
    batch_size: int,
    seed: int,
) -> dict[str, Estimates]:
    """The losses of windows that the model was trained on, those of the split, and the gap.

    Args:
        model: to be measured.
        terms: `objective` of all windows.
        windows: of the split.
        train: of the training split; `NUM_TRAINING_WINDOWS` of them, spread evenly, are used.
        batch_size: windows in a batch.
        seed: of latents and intervals.
    """
    index = np.unique(np.linspace(0, len(train) - 1, NUM_TRAINING_WINDOWS).astype(int))
    seen, generator = train.select(index.tolist()), torch.Generator().manual_seed(seed)
    batches = [
        objective(forward(model, batch.piano_roll, batch.timing, generator))
        for batch in seen.batches(batch_size)
    ]
    columns: dict[str, Estimates] = {"training_windows": {}, "split": {}, "gap": {}}
    files, seen_files = windows.file.numpy(), seen.file.numpy()
    for name in [name for name in terms if name.endswith("_loss")]:
        values = np.concatenate([each[name] for each in batches])
        columns["training_windows"][name] = interval(values, None, seen_files, seed)
        columns["split"][name] = interval(terms[name], None, files, seed)
        columns["gap"][name] = difference(terms[name], values, files, seen_files, seed)
    return columns


def num_active(means: torch.Tensor) -> int:
    """How many dimensions of posterior means (windows, latent_size) tell windows apart."""
    return (means.var(0) > ACTIVE_VARIANCE).sum().item()


def objective(output: MusicVAEOutput) -> dict[str, np.ndarray]:
    """The terms of the ELBO, each float64 (batch,)."""
    terms = {
        "elbo": -(output.reconstruction_loss + output.kl_divergence),
        "reconstruction_loss": output.reconstruction_loss,
        **loss_terms(output),
        "kl_bits": output.kl_divergence / math.log(2),
    }
    return {name: term.double().numpy() for name, term in terms.items()}
