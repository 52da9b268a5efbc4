"""What a model is measured by while it trains."""

import math
from typing import Any

import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader

from modeling_musicvae import MusicVAEConfig
from modeling_musicvae.drum_patterns import to_hits, to_patterns
from processing.piano_roll import QUARTERS_PER_BAR

LOSS_TERMS = ("hits_loss", "velocity_loss", "timing_loss")


@torch.no_grad()
def evaluate(
    accelerator: Accelerator, model: torch.nn.Module, loader: DataLoader, seed: int
) -> dict[str, float]:
    """Means over all sequences of `loader`, with latents and draws from `seed`.

    Returns:
        loss (what training minimises, fully annealed), elbo, reconstruction_loss and its terms in
        nats per sequence, kl_bits in bits per sequence; when the decoder sees the true past
        (teacher_forced, where it does what is most likely) and when it sees its own draws at
        temperature 1 (sampled), pattern_accuracy, the share of steps whose pattern is right, and,
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
        posterior = model.encode(piano_roll, timing)
        noise = torch.randn(posterior.mean.shape, generator=generator).to(posterior.mean.device)
        latents = posterior.mean + posterior.std * noise
        score = piano_roll if model.config.hits_as_controls else None
        output = model(piano_roll, timing, latents=latents)
        if not output.loss.isfinite():  # no drums can be drawn from such logits
            raise FloatingPointError(
                f"validation loss: found {output.loss:g}, expected a finite number, as a lower "
                "--learning_rate may give"
            )
        teacher_forced = model.most_likely(output.logits, score)
        sampled = model.decode(latents, 1.0, generator, score)
        columns = {
            "reconstruction_loss": output.reconstruction_loss,
            **loss_terms(output),
            "kl": output.kl_divergence,
            "costly_kl": (output.kl_divergence - model.config.free_bits * math.log(2)).relu(),
            **compare(teacher_forced, batch, steps_per_bar, "teacher_forced"),
            **compare(sampled, batch, steps_per_bar, "sampled"),
        }
        rows.append(accelerator.gather_for_metrics(torch.stack(list(columns.values()), 1)))
    model.train()
    means = dict(zip(columns, torch.cat(rows).double().mean(0).tolist(), strict=True))
    return summarize(means, model.config)


def loss_terms(output: Any) -> dict[str, torch.Tensor]:
    """Those of the losses, (batch,), that the model's output has."""
    terms = {name: output[name] for name in LOSS_TERMS if name in output}
    return terms if len(terms) > 1 else {}


def compare(
    drums: Any, batch: dict[str, torch.Tensor], steps_per_bar: int, way: str
) -> dict[str, torch.Tensor]:
    """How drums of the model differ from those that they are to be: each number (batch,)."""
    truth = batch["piano_roll"]
    right = to_patterns(to_hits(drums.piano_roll)) == to_patterns(to_hits(truth))
    common = (drums.piano_roll > 0) & (truth > 0)
    step_ms = 60_000 * QUARTERS_PER_BAR / (batch["bpm"] * steps_per_bar)
    velocity_errors = (drums.piano_roll.float() - truth.float()).abs() * common
    timing_errors = (drums.timing - batch["timing"]).abs() * common
    return {
        f"pattern_accuracy_{way}": right.float().mean(-1),
        f"common_hits_{way}": common.float().sum((1, 2)),
        f"velocity_error_{way}": velocity_errors.sum((1, 2)),
        f"timing_error_ms_{way}": timing_errors.sum((1, 2)) * step_ms,
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
