"""The measures of a model in training, against plain computations of the same."""

import math

import pytest
import torch
from accelerate import Accelerator
from factories import pattern_logits
from torch.distributions import Normal, kl_divergence
from torch.utils.data import DataLoader
from training_runs import HITS_METRICS, METRICS, WAYS, tiny_model

from modeling_musicvae import MusicVAEModel
from musicvae.evaluation.metrics import evaluate

pytestmark = pytest.mark.usefixtures("one_cpu_thread")


def loader_of_drums() -> DataLoader:
    """Five windows of random drums at five tempos, two in a batch."""
    generator = torch.Generator().manual_seed(1)
    hits = torch.rand(5, 9, 64, generator=generator) < 0.1
    rolls = (torch.randint(1, 128, hits.shape, generator=generator) * hits).to(torch.uint8)
    timing = (torch.rand(hits.shape, generator=generator) - 0.5) * hits
    columns = {"piano_roll": rolls, "timing": timing, "bpm": torch.linspace(60, 180, 5)}
    examples = [
        dict(zip(columns, example, strict=True)) for example in zip(*columns.values(), strict=True)
    ]
    return DataLoader(examples, 2)


def test_evaluation_of_a_model_that_knows_nothing():
    model, loader = tiny_model(max_beta=0.5, free_bits=1.0), loader_of_drums()
    for parameter in model.parameters():
        torch.nn.init.zeros_(parameter)
    metrics = evaluate(Accelerator(), model, loader, seed=0)
    rolls = torch.stack([example["piano_roll"] for example in loader.dataset])
    num_hits = (rolls > 0).sum().item() / len(rolls)
    losses = {
        "hits_loss": 64 * math.log(512),
        "velocity_loss": num_hits * math.log(8),
        "timing_loss": num_hits * math.log(9),
    }
    std = math.log(2)  # the softplus of 0
    kl = 8 * (std**2 - 1 - 2 * math.log(std)) / 2
    expected = losses | {
        "reconstruction_loss": sum(losses.values()),
        "kl_bits": kl / math.log(2),
        "elbo": -sum(losses.values()) - kl,
        "loss": sum(losses.values()) + 0.5 * (kl - math.log(2)),
        "pattern_accuracy_teacher_forced": (rolls == 0).all(1).float().mean().item(),
    }
    assert {name: metrics[name] for name in expected} == pytest.approx(expected)
    assert metrics["pattern_accuracy_sampled"] < 0.05
    # By argmax it is silent, so that no hit is in both.
    silent = {"velocity_mae_teacher_forced", "timing_mae_ms_teacher_forced"}
    assert set(metrics) == METRICS - silent


@pytest.fixture
def wild_model() -> MusicVAEModel:
    """A model to which no two sequences are alike."""
    torch.manual_seed(0)
    model = tiny_model(max_beta=0.5).eval()  # whose losses dropout does not change
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.7)
    return model


def errors_of_common_hits(
    piano_roll: torch.Tensor, timing: torch.Tensor, target: dict[str, torch.Tensor]
) -> list[tuple[float, float]]:
    """Of each hit of one window that is in both: in velocity, and in ms at the window's tempo."""
    step_seconds = 60 / target["bpm"].item() / 4
    errors = []
    for drum, step in (target["piano_roll"] > 0).nonzero().tolist():
        if piano_roll[drum, step] > 0:
            velocities = (roll[drum, step].item() for roll in (piano_roll, target["piano_roll"]))
            onsets = (times[drum, step].item() for times in (timing, target["timing"]))
            (played, true), (at, truly_at) = velocities, onsets
            errors.append((abs(played - true), 1000 * step_seconds * abs(at - truly_at)))
    return errors


def test_evaluation_is_the_mean_over_all_sequences_and_of_errors_over_all_hits(wild_model):
    loader = loader_of_drums()
    generator = torch.Generator().manual_seed(7)
    rows, errors = [], {way: [] for way in WAYS}
    for batch in loader:
        posterior = wild_model.encode(batch["piano_roll"], batch["timing"])
        noise = torch.randn(posterior.mean.shape, generator=generator)
        latents = posterior.mean + posterior.std * noise
        output = wild_model(batch["piano_roll"], batch["timing"], latents=latents)
        drums = {
            "teacher_forced": wild_model.greedy(output.logits),
            "sampled": wild_model.decode(latents, 1.0, generator),
        }
        logits = pattern_logits(output.logits, num_drums=9)
        for i, roll in enumerate(batch["piano_roll"]):
            target = {name: column[i] for name, column in batch.items()}
            patterns = (2 ** torch.arange(9)) @ (roll > 0).long()
            likelihoods = logits[i].log_softmax(-1)[torch.arange(64), patterns]
            prior = Normal(0.0, 1.0)
            kl = kl_divergence(Normal(posterior.mean[i], posterior.std[i]), prior).sum()
            forced = (logits[i].argmax(-1) == patterns).float().mean()
            sampled = ((drums["sampled"].piano_roll[i] > 0) == (roll > 0)).all(0).float().mean()
            losses = (-likelihoods.sum(), output.velocity_loss[i], output.timing_loss[i])
            rows.append(torch.stack([*losses, kl, forced, sampled]))
            for way, made in drums.items():
                errors[way] += errors_of_common_hits(made.piano_roll[i], made.timing[i], target)
    hits, velocity, timing, kl, forced, sampled = torch.stack(rows).T
    reconstruction_loss = hits + velocity + timing
    free = kl.median().item()  # within which some sequences stay, and some do not
    wild_model.config.free_bits = free / math.log(2)
    expected = {
        "loss": reconstruction_loss.mean() + 0.5 * (kl - free).clamp(min=0).mean(),
        "elbo": -(reconstruction_loss + kl).mean(),
        "reconstruction_loss": reconstruction_loss.mean(),
        "hits_loss": hits.mean(),
        "velocity_loss": velocity.mean(),
        "timing_loss": timing.mean(),
        "kl_bits": kl.mean() / math.log(2),
        "pattern_accuracy_teacher_forced": forced.mean(),
        "pattern_accuracy_sampled": sampled.mean(),
    }
    for way in WAYS:
        means = torch.tensor(errors[way]).mean(0)
        expected[f"velocity_mae_{way}"], expected[f"timing_mae_ms_{way}"] = means
    metrics = evaluate(Accelerator(), wild_model, loader, seed=7)
    assert metrics == pytest.approx({name: value.item() for name, value in expected.items()})


@pytest.mark.parametrize(
    "settings",
    [{"velocity_bins": 0, "timing_bins": 0}, {"output": "nade"}],
    ids=["categorical", "nade"],
)
def test_a_model_of_hits_alone_is_measured_by_them(settings):
    metrics = evaluate(Accelerator(), tiny_model(**settings), loader_of_drums(), 0)
    assert set(metrics) == HITS_METRICS


def test_a_model_that_is_conditioned_on_the_hits_has_them_right():
    model = tiny_model(hits_as_controls=True)
    metrics = evaluate(Accelerator(), model, loader_of_drums(), seed=0)
    assert set(metrics) == METRICS - {"hits_loss"}
    assert [metrics[f"pattern_accuracy_{way}"] for way in WAYS] == [1, 1]


def test_evaluation_is_deterministic_and_leaves_training_as_it_was(wild_model, loaders):
    _, eval_loader = loaders
    accelerator, random_state = Accelerator(), torch.get_rng_state()
    first, second = (evaluate(accelerator, wild_model, eval_loader, seed=0) for _ in range(2))
    assert first == second
    assert torch.equal(torch.get_rng_state(), random_state)
    assert wild_model.training
