"""How well a model gives drums back, and what it costs."""

import math

import numpy as np
import torch

from modeling_musicvae import MusicVAEModel
from modeling_musicvae.modeling_musicvae import MusicVAEOutput
from musicvae.evaluation.metrics import forward, loss_terms

from . import baselines
from .bootstrap import Estimate, interval
from .drum_metrics import Estimates, join, measure_ways
from .windows import Windows

ACTIVE_VARIANCE = 0.01


@torch.no_grad()
def measure_reconstruction(
    model: MusicVAEModel, windows: Windows, train: Windows, batch_size: int, seed: int
) -> dict[str, Estimates | dict[str, Estimates]]:
    """The terms of the ELBO, and drums made in three ways beside those of trivial baselines.

    They are teacher_forced, what is most likely when the decoder sees the true past; sampled, drawn
    at temperature 1 from a latent that is drawn from the posterior; and greedy, the most likely at
    each step, from the posterior mean. `players` stand beside a model that has to find the hits in
    drums that it sees whole.

    Args:
        model: to be measured.
        windows: to be given back.
        train: windows of the training split, for the baselines.
        batch_size: windows that the model is given at once.
        seed: of latents, draws and intervals.

    Returns:
        objective: elbo, reconstruction_loss and its terms in nats per sequence, kl_bits in bits per
        sequence, and active_latents, the latent dimensions whose posterior mean varies over windows
        by more than 0.01 (Burda, Grosse and Salakhutdinov 2015, arXiv 1509.00519). The rest is
        that of `measure_ways`.
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
        for player in (baselines.silence, baselines.most_frequent, baselines.nearest):
            ways[player.__name__] = player(train, windows)
    figures = {
        name: interval(np.concatenate([terms[name] for terms in batches]), None, files, seed)
        for name in batches[0]
    }
    figures["active_latents"] = Estimate(num_active(torch.cat(means)))
    return {"objective": figures, **measure_ways(ways, windows, config, seed)}


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
