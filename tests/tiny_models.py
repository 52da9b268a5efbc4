"""Models small enough to test by the dozen, and drums for them."""

import pytest
import torch

from modeling_musicvae import MusicVAEConfig, MusicVAEModel

# Three bars of five steps, four drums; every size differs, so that none passes for another.
BARS, STEPS_PER_BAR, NUM_DRUMS, LATENT_SIZE = 3, 5, 4, 6
STEPS, NUM_PATTERNS = BARS * STEPS_PER_BAR, 2**NUM_DRUMS
VELOCITY_BINS, TIMING_BINS = 8, 9
SIZES = {
    "bars": BARS,
    "steps_per_bar": STEPS_PER_BAR,
    "num_drums": NUM_DRUMS,
    "latent_size": LATENT_SIZE,
    "encoder_hidden_size": 7,
    "nade_hidden_size": 10,
    "conductor_hidden_size": 11,
    "decoder_hidden_size": 13,
    "dropout": 0.0,
}
OUTPUTS = {
    "categorical": {},
    "hits": {"velocity_bins": 0, "timing_bins": 0},
    "groove": {"output": "groove"},
    "nade": {"output": "nade"},
}
EXPRESSIVE = {name: OUTPUTS[name] for name in ("categorical", "groove")}
HITS_ALONE = {name: OUTPUTS[name] for name in ("hits", "nade")}
ON_HITS = {
    f"{name}, hits as controls": settings | {"hits_as_controls": True}
    for name, settings in EXPRESSIVE.items()
}
ON_TAPS = {
    f"{name}, taps as controls": settings | {"input_transform": "tap", "input_as_controls": True}
    for name, settings in OUTPUTS.items()
}
ON_ENCODER = {
    f"{name}, conditioned on the encoder": settings
    | {"input_transform": "tap", "encoder_conditioning_size": 5}
    for name, settings in (EXPRESSIVE | {"nade": OUTPUTS["nade"]}).items()
}
ON_ALL = {
    f"{name}, conditioned on all": settings
    | {"input_transform": "humanize", "encoder_conditioning_size": 5}
    | {"hits_as_controls": True, "input_as_controls": True}
    for name, settings in EXPRESSIVE.items()
}
CONDITIONED = ON_HITS | ON_TAPS | ON_ENCODER | ON_ALL
CONDITIONED_OR_NOT = OUTPUTS | CONDITIONED


def over(outputs: dict[str, dict]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("output", outputs.values(), ids=outputs)


both_decoders = pytest.mark.parametrize("decoder", ["hierarchical", "flat"])
all_outputs = over(OUTPUTS)


def random_model(decoder: str = "hierarchical", **settings) -> MusicVAEModel:
    """A model whose every weight matters, biases too."""
    torch.manual_seed(0)
    model = MusicVAEModel(MusicVAEConfig(decoder=decoder, **SIZES | settings))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=1.0 if parameter.ndim > 1 else 0.2)
    return model.eval()


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_rolls(batch: int = 5, steps: int = STEPS, num_drums: int = NUM_DRUMS) -> torch.Tensor:
    velocities = torch.randint(1, 128, (batch, num_drums, steps), generator=seeded(1))
    hits = torch.rand(batch, num_drums, steps, generator=seeded(2)) < 0.4
    return (velocities * hits).to(torch.uint8)


def random_timing(piano_roll: torch.Tensor, seed: int = 4) -> torch.Tensor:
    """Microtiming for the hits of a piano roll."""
    return (torch.rand(piano_roll.shape, generator=seeded(seed)) - 0.5) * (piano_roll > 0)


def random_latents(batch: int = 5) -> torch.Tensor:
    return torch.randn(batch, LATENT_SIZE, generator=seeded(3))


ROLLS, LATENTS = random_rolls(), random_latents()
TIMING = random_timing(ROLLS)


def pattern_logits(logits: torch.Tensor, num_drums: int = NUM_DRUMS) -> torch.Tensor:
    """(batch, steps, patterns): a score of each, and one of each drum that all with a hit share."""
    num_patterns = 2**num_drums
    hits = torch.arange(num_patterns)[:, None] >> torch.arange(num_drums) & 1
    of_hits = logits[..., num_patterns : num_patterns + num_drums]
    return logits[..., :num_patterns] + of_hits @ hits.T.float()
