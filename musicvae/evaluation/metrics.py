"""Losses and metrics of a model while it trains."""

import math
from typing import Any

import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader

from modeling_musicvae import MusicVAEConfig, MusicVAEModel
from modeling_musicvae.drum_patterns import to_hits, to_patterns
from modeling_musicvae.modeling_musicvae import MusicVAEOutput
from processing.piano_roll import QUARTERS_PER_BAR

LOSS_TERMS = ("hits_loss", "velocity_loss", "timing_loss")


@torch.no_grad()
def evaluate(
    accelerator: Accelerator, model: torch.nn.Module, loader: DataLoader, seed: int
) -> dict[str, float]:
    """Means over all sequences of `loader`, with latents and draws from `seed`.

    Returns:
        loss (what training minimises, fully annealed), elbo, reconstruction_loss and its terms in
        nats per sequence, kl_bits in bits per sequence; given the ground-truth previous
        steps (teacher_forced, argmax) and given its own previous draws at temperature 1 (sampled),
        pattern_accuracy, the share of steps whose pattern is right, and,
        on hits that are in both, the mean absolute errors velocity_mae in MIDI units and
        timing_mae_ms in milliseconds at the tempo of the recording.

    Raises:
        FloatingPointError: a loss is not finite: the training has diverged.
    """
    model = accelerator.unwrap_model(model)
    model.eval()
    generator = torch.Generator().manual_seed(seed + accelerator.process_index)
    rows, steps_per_bar = [], model.config.steps_per_bar
    for batch in loader:
        piano_roll, timing = batch["piano_roll"], batch["timing"]
        output = forward(model, piano_roll, timing, generator)
        if not output.loss.isfinite():  # no drums can be drawn from such logits
            raise FloatingPointError(
                f"validation loss: found {output.loss:g}, expected a finite number, as a lower "
                "--learning_rate may give"
            )
        score, conditioning = model.conditioning(piano_roll, timing)
        ways = {
            "teacher_forced": model.greedy(output.logits, score),
            "sampled": model.decode(output.latents, 1.0, generator, score, conditioning),
        }
        columns = {
            "reconstruction_loss": output.reconstruction_loss,
            **loss_terms(output),
            "kl": output.kl_divergence,
            "costly_kl": (output.kl_divergence - model.config.free_bits * math.log(2)).relu(),
        }
        for way, drums in ways.items():
            differences = compare(drums, piano_roll, timing, batch["bpm"], steps_per_bar)
            columns |= {f"{name}_{way}": column for name, column in differences.items()}
        rows.append(accelerator.gather_for_metrics(torch.stack(list(columns.values()), 1)))
    model.train()
    means = dict(zip(columns, torch.cat(rows).double().mean(0).tolist(), strict=True))
    return summarize(means, model.config)


def forward(
    model: MusicVAEModel,
    piano_roll: torch.Tensor,
    timing: torch.Tensor,
    generator: torch.Generator,
) -> MusicVAEOutput:
    """The forward pass on drums, with latents that `generator` draws from the posterior."""
    posterior = model.encode(piano_roll, timing)
    noise = torch.randn(posterior.mean.shape, generator=generator).to(posterior.mean.device)
    latents = posterior.mean + posterior.std * noise
    return model(piano_roll, timing, latents=latents)


def loss_terms(output: MusicVAEOutput) -> dict[str, torch.Tensor]:
    """Those of the losses, (batch,), that the model's output has."""
    terms = {name: output[name] for name in LOSS_TERMS if name in output}
    return terms if len(terms) > 1 else {}


def compare(
    drums: Any,
    piano_roll: torch.Tensor,
    timing: torch.Tensor,
    bpm: torch.Tensor,
    steps_per_bar: int,
) -> dict[str, torch.Tensor]:
    """How drums differ from those that they are to be.

    Args:
        drums: those that are measured, with a `piano_roll` and a `timing`.
        piano_roll: uint8 (batch, drums, steps), those that they are to be.
        timing: float32 (batch, drums, steps).
        bpm: float32 (batch,), quarter notes a minute.
        steps_per_bar: steps in a bar.

    Returns:
        Each float32 (batch,): pattern_accuracy, the share of steps whose pattern is right; and of
        the hits that are in both, common_hits, how many they are, and the sums of their absolute
        errors, velocity_error in MIDI units and timing_error_ms in milliseconds.
    """
    right = to_patterns(to_hits(drums.piano_roll)) == to_patterns(to_hits(piano_roll))
    common = (drums.piano_roll > 0) & (piano_roll > 0)
    step_ms = 60_000 * QUARTERS_PER_BAR / (bpm * steps_per_bar)
    velocity_errors = (drums.piano_roll.float() - piano_roll.float()).abs() * common
    timing_errors = (drums.timing - timing).abs() * common
    return {
        "pattern_accuracy": right.float().mean(-1),
        "common_hits": common.float().sum((1, 2)),
        "velocity_error": velocity_errors.sum((1, 2)),
        "timing_error_ms": timing_errors.sum((1, 2)) * step_ms,
    }


def summarize(means: dict[str, float], config: MusicVAEConfig) -> dict[str, float]:
    """The metrics of `evaluate` from the means of what it gathered."""
    metrics = {
        "loss": means["reconstruction_loss"] + config.max_beta * means["costly_kl"],
        "elbo": -(means["reconstruction_loss"] + means["kl"]),
        **{name: value for name, value in means.items() if name.endswith("_loss")},
        "kl_bits": means["kl"] / math.log(2),
    }
    for way in ("teacher_forced", "sampled"):
        metrics[f"pattern_accuracy_{way}"] = means[f"pattern_accuracy_{way}"]
        hits = means[f"common_hits_{way}"]
        if hits and config.models_expression:
            metrics[f"velocity_mae_{way}"] = means[f"velocity_error_{way}"] / hits
            metrics[f"timing_mae_ms_{way}"] = means[f"timing_error_ms_{way}"] / hits
    return metrics
