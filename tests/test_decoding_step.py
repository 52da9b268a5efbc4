"""One step of the decoder: the same drums by folded tables, by the head itself and fused."""

import pytest
import torch

from modeling_musicvae import MusicVAEConfig, MusicVAEModel
from modeling_musicvae import decoding_step as module
from modeling_musicvae.output_heads import FixedDrums

SIZES = {
    "latent_size": 8,
    "encoder_hidden_size": 12,
    "conductor_hidden_size": 10,
    "decoder_hidden_size": 16,
}
KINDS = {
    "categorical": {},
    "hits alone": {"velocity_bins": 0, "timing_bins": 0},
    "velocity alone": {"timing_bins": 0},
    "without hit features": {"hit_features": False},
    "without look-back": {"lookback_bars": 0},
    "flat": {"decoder": "flat"},
    "three layers": {"decoder_num_layers": 3},
    "groove": {"output": "groove"},
    "nade": {"output": "nade"},
    "humanize": {
        "input_transform": "humanize",
        "hits_as_controls": True,
        "encoder_conditioning_size": 6,
    },
    "tap": {"input_transform": "tap", "input_as_controls": True, "encoder_conditioning_size": 6},
}
every_kind = pytest.mark.parametrize("kind", KINDS)
FOLDED = [kind for kind in KINDS if kind not in ("groove", "nade")]


def random_model(kind: str = "categorical", seed: int = 0) -> MusicVAEModel:
    torch.manual_seed(seed)
    model = MusicVAEModel(MusicVAEConfig(**SIZES | KINDS[kind])).eval()
    for parameter in model.parameters():  # biases too, which start at zero
        parameter.data.add_(0.2 * torch.randn_like(parameter))
    return model


def random_drums(batch: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    hits = torch.rand(batch, 9, 64, generator=generator) < 0.2
    velocities = torch.randint(1, 128, hits.shape, generator=generator)
    timing = torch.rand(hits.shape, generator=generator) - 0.5
    return (velocities * hits).to(torch.uint8), timing * hits


def drawn_frames(model: MusicVAEModel, temperature: float = 1.0, fixed=None) -> torch.Tensor:
    drums = random_drums()
    _, conditioning = model.conditioning(*drums)
    uniform = torch.rand(64, 3, model.head.num_draws, generator=torch.Generator().manual_seed(2))
    contexts = model._contexts(torch.zeros(3, 8))
    return model.decoder.sample(contexts, temperature, uniform, conditioning, fixed)


@every_kind
@pytest.mark.parametrize("temperature", [0, 0.7, 1.0])
def test_step_by_step_the_logits_are_those_of_the_fused_pass(kind, temperature):
    model = random_model(kind)
    frames = drawn_frames(model, temperature)
    uniform = torch.rand(64, 3, model.head.num_draws, generator=torch.Generator().manual_seed(2))
    _, conditioning = model.conditioning(*random_drums())
    with torch.no_grad():
        logits = model.decoder(model._contexts(torch.zeros(3, 8)), frames, conditioning).float()
    expected = model.head.sample(
        logits.flatten(0, 1), temperature, uniform.transpose(0, 1).flatten(0, 1)
    )
    same = (expected.view_as(frames) - frames).abs().amax(-1) < 1e-4
    assert same.float().mean() >= 0.99  # a draw that lies on a rounding tie may differ


@pytest.mark.parametrize("kind", FOLDED)
@pytest.mark.parametrize("temperature", [0, 1.0])
@pytest.mark.parametrize("given", ["nothing", "hits", "two drums"])
def test_folded_tables_draw_what_the_head_draws(kind, temperature, given, monkeypatch):
    model = random_model(kind)
    frames = model.head.to_frames(*random_drums())
    two_drums = torch.zeros(9, dtype=torch.bool).index_fill(0, torch.tensor([0, 4]), True)
    fixed = {
        "nothing": None,
        "hits": FixedDrums.hits(frames, 9),
        "two drums": FixedDrums(frames, two_drums, expression=True),
    }[given]
    folded = drawn_frames(model, temperature, fixed)
    assert isinstance(model.decoder.decoding_step().head, module.FoldedHead)
    monkeypatch.setattr(module, "FoldedHead", module.HeadStep)
    plain = drawn_frames(random_model(kind), temperature, fixed)
    assert (folded == plain).all(-1).float().mean() >= 0.99


def take_step(model: MusicVAEModel) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    model(*random_drums()).loss.backward()
    optimizer.step()


@pytest.mark.parametrize(
    "change",
    [
        lambda model: torch.nn.init.ones_(model.decoder.output.bias),
        lambda model: take_step(model),
        lambda model: model.decoder.output.bias.data.add_(1.0),
        lambda model: model.load_state_dict(random_model(seed=1).state_dict()),
        lambda model: model.to(torch.bfloat16),
    ],
    ids=["a weight", "a training step", "a weight's data", "all weights", "the dtype"],
)
def test_tables_are_made_anew_after_a_change(change):
    model = random_model()
    before = model.decoder.decoding_step()
    assert model.decoder.decoding_step() is before
    change(model)
    assert model.decoder.decoding_step() is not before


def test_tables_are_not_saved(tmp_path):
    model = random_model()
    names = set(model.state_dict())
    model.sample(1)
    assert set(model.state_dict()) == names


def test_bfloat16_weights_draw_drums():
    model = random_model().to(torch.bfloat16)
    drums = model.sample(2, generator=torch.Generator().manual_seed(0))
    assert drums.piano_roll.any()
