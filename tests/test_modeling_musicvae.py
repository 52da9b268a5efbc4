"""MusicVAEModel: its loss, its structure, what it makes, what it refuses, and how it is kept."""

import math
import os
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.distributions import Normal, kl_divergence
from transformers import AutoModel

from modeling_musicvae import MusicVAEConfig, MusicVAEModel
from modeling_musicvae.drum_patterns import to_hits, to_patterns
from processing import MusicVAEProcessor

# Three bars of four steps, three drums; every size differs, so that none passes for another.
BARS, STEPS_PER_BAR, NUM_DRUMS, LATENT_SIZE = 3, 4, 3, 6
STEPS, NUM_PATTERNS = BARS * STEPS_PER_BAR, 2**NUM_DRUMS
SIZES = {
    "bars": BARS,
    "steps_per_bar": STEPS_PER_BAR,
    "num_drums": NUM_DRUMS,
    "latent_size": LATENT_SIZE,
    "encoder_hidden_size": 5,
    "conductor_hidden_size": 7,
    "decoder_hidden_size": 9,
}
both_decoders = pytest.mark.parametrize("decoder", ["hierarchical", "flat"])
both_dtypes = pytest.mark.parametrize(
    "dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"]
)


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


def random_latents(batch: int = 5) -> torch.Tensor:
    return torch.randn(batch, LATENT_SIZE, generator=seeded(3))


def patterns_of(piano_roll: torch.Tensor) -> torch.Tensor:
    return to_patterns(to_hits(piano_roll))


# The loss


@both_decoders
def test_forward_gives_the_loss_its_terms_and_what_led_to_them(decoder):
    output = random_model(decoder)(random_rolls())
    described = {name: (tuple(value.shape), value.dtype) for name, value in output.items()}
    assert described == {
        "loss": ((), torch.float32),
        "reconstruction_loss": ((5,), torch.float32),
        "kl_divergence": ((5,), torch.float32),
        "logits": ((5, STEPS, NUM_PATTERNS), torch.float32),
        "mean": ((5, LATENT_SIZE), torch.float32),
        "std": ((5, LATENT_SIZE), torch.float32),
        "latents": ((5, LATENT_SIZE), torch.float32),
    }


def test_forward_gives_a_tuple_where_asked():
    outputs = random_model()(random_rolls(), latents=random_latents(), return_dict=False)
    expected = random_model()(random_rolls(), latents=random_latents())
    torch.testing.assert_close(outputs, expected.to_tuple(), rtol=0, atol=0)


def test_reconstruction_loss_is_the_negative_log_likelihood_summed_over_steps():
    output = random_model()(random_rolls())
    log_likelihood = output.logits.log_softmax(-1).gather(
        -1, patterns_of(random_rolls())[..., None]
    )
    torch.testing.assert_close(output.reconstruction_loss, -log_likelihood.sum((1, 2)))


def test_kl_divergence_is_that_of_the_posterior_from_the_prior_summed_over_dimensions():
    output = random_model()(random_rolls())
    expected = kl_divergence(Normal(output.mean, output.std), Normal(0.0, 1.0)).sum(-1)
    torch.testing.assert_close(output.kl_divergence, expected)


@pytest.mark.parametrize(
    "beta_rate, step, beta",
    [
        pytest.param(0.0, None, 0.2, id="no step: fully annealed"),
        pytest.param(0.9, None, 0.2, id="no step, with a rate: fully annealed"),
        pytest.param(0.0, 0, 0.0, id="step 0, where 0 ** 0 is 1"),
        pytest.param(0.0, 1, 0.2, id="step 1 of no annealing"),
        pytest.param(0.9, 0, 0.0, id="step 0 of annealing"),
        pytest.param(0.9, 10, 0.2 * (1 - 0.9**10), id="step 10 of annealing"),
    ],
)
def test_loss_adds_beta_times_the_divergence_beyond_the_free_bits_of_a_sequence(
    beta_rate, step, beta
):
    divergences = random_model()(random_rolls()).kl_divergence.sort().values
    free_bits = (divergences[1] + divergences[2]).item() / 2 / math.log(2)
    model = random_model(free_bits=free_bits, max_beta=0.2, beta_rate=beta_rate)
    output = model(random_rolls(), step=step)
    costs = [max(nats - free_bits * math.log(2), 0) for nats in output.kl_divergence.tolist()]
    assert costs.count(0) == 2
    expected = output.reconstruction_loss.mean().item() + beta * sum(costs) / 5
    assert output.loss.item() == pytest.approx(expected, rel=1e-6)


def test_latents_are_drawn_from_the_posterior():
    output = random_model()(random_rolls(1).expand(10_000, -1, -1))
    error_of_mean = (output.latents.mean(0) - output.mean[0]) / output.std[0]
    assert error_of_mean.abs().max() < 5 / math.sqrt(10_000)
    torch.testing.assert_close(output.latents.std(0), output.std[0], rtol=0.04, atol=0)


def test_given_latents_are_decoded_instead_of_a_draw():
    model, latents = random_model(), random_latents()
    output = model(random_rolls(), latents=latents)
    assert output.latents is latents
    assert torch.equal(output.logits, model(random_rolls(), latents=latents).logits)
    assert not torch.allclose(output.logits, model(random_rolls(), latents=-latents).logits)


def test_the_velocity_of_a_hit_does_not_matter():
    model, latents = random_model(), random_latents()
    soft = random_rolls().clamp(max=1)
    assert torch.equal(
        model(random_rolls(), latents=latents).loss, model(soft, latents=latents).loss
    )


@both_decoders
def test_every_parameter_has_a_gradient(decoder):
    model = random_model(decoder, free_bits=0)
    model(random_rolls(50)).loss.backward()
    without = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    # The conductor reads nothing but its state: its input is a zero, as in the original.
    assert without == (["conductor.lstm.weight_ih_l0"] if decoder == "hierarchical" else [])
    assert all(parameter.grad is not None for parameter in model.parameters())


@both_decoders
def test_autocast_computes_the_loss_in_float32(decoder):
    model = random_model(decoder)
    expected = model(random_rolls(), latents=random_latents())
    with torch.autocast("cpu", torch.bfloat16):
        output = model(random_rolls(), latents=random_latents())
    assert output.logits.dtype == torch.bfloat16
    for name in ("loss", "reconstruction_loss", "kl_divergence", "mean", "std"):
        assert output[name].dtype == torch.float32
        torch.testing.assert_close(output[name], expected[name], rtol=0.05, atol=0.05)


# The structure


def changed_steps(model: MusicVAEModel, edited_steps: slice) -> set[int]:
    """The steps whose teacher-forced logits change with the hits of the edited steps."""
    edited = random_rolls()
    edited[..., edited_steps] = torch.where(edited[..., edited_steps] > 0, 0, 100).to(torch.uint8)
    before, after = (
        model(roll, latents=random_latents()).logits for roll in (random_rolls(), edited)
    )
    return set((before != after).any(-1).any(0).nonzero().flatten().tolist())


def test_of_a_bar_nothing_but_its_last_step_reaches_the_next_in_a_hierarchical_model():
    model = random_model("hierarchical")
    assert changed_steps(model, slice(0, STEPS_PER_BAR - 1)) == {1, 2, 3}
    assert changed_steps(model, slice(STEPS_PER_BAR - 1, STEPS_PER_BAR)) == {4, 5, 6, 7}
    assert changed_steps(model, slice(0, STEPS_PER_BAR)) == {1, 2, 3, 4, 5, 6, 7}


def test_every_step_reaches_all_that_follow_in_a_flat_model():
    model = random_model("flat")
    assert changed_steps(model, slice(0, STEPS_PER_BAR - 1)) == set(range(1, STEPS))
    assert changed_steps(model, slice(STEPS - 1, STEPS)) == set()


def test_every_bar_has_its_own_embedding():
    model = random_model()
    embeddings = model.conductor(random_latents())
    assert embeddings.shape == (5, BARS, SIZES["conductor_hidden_size"])
    assert (embeddings.diff(dim=1).abs() > 1e-3).any(-1).all()


def assert_uniform(weight: torch.Tensor, bound: float):
    assert 0.95 * bound < weight.abs().max().item() <= bound
    assert weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.1)


def test_weights_start_after_glorot_and_like_an_embedding_where_hits_are_read():
    sizes = {"num_drums": 6, "latent_size": 32, "encoder_num_layers": 2, "encoder_hidden_size": 40}
    sizes |= {"conductor_hidden_size": 24, "decoder_hidden_size": 48}
    torch.manual_seed(0)
    model = MusicVAEModel(MusicVAEConfig(**sizes))
    encoder, decoder = model.encoder.lstm, model.decoder.lstm
    for weight in (encoder.weight_ih_l0, encoder.weight_ih_l0_reverse, decoder.weight_ih_l0):
        assert weight[:, : 2**6].std().item() == pytest.approx(1.0, rel=0.1)
    for module in model.modules():
        if isinstance(module, torch.nn.LSTM):
            size = module.hidden_size
            for weight_ih, weight_hh, bias_ih, bias_hh in module.all_weights:
                bound = math.sqrt(6 / (weight_ih.shape[1] + 5 * size))
                assert_uniform(weight_hh, bound)
                forget = torch.zeros(4, size)
                forget[1] = 1
                assert torch.equal(bias_ih + bias_hh, forget.flatten())
            if module is not encoder:
                assert_uniform(module.weight_ih_l1, math.sqrt(6 / (6 * size)))
        elif isinstance(module, torch.nn.Linear):
            assert_uniform(module.weight, math.sqrt(6 / sum(module.weight.shape)))
            assert not module.bias.any()
    context_columns = decoder.weight_ih_l0[:, 2**6 :]
    assert_uniform(context_columns, math.sqrt(6 / (2**6 + 24 + 5 * 48)))


# What it makes


@both_decoders
def test_greedy_drums_are_the_most_likely_under_teacher_forcing(decoder):
    model, latents = random_model(decoder), random_latents(50)
    piano_roll = model.decode(latents, temperature=0).piano_roll
    logits = model(piano_roll, latents=latents).logits
    assert torch.equal(logits.argmax(-1), patterns_of(piano_roll))
    assert patterns_of(piano_roll).unique(dim=0).shape[0] > 10


@both_decoders
@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_drums_are_drawn_from_the_likelihood_at_that_temperature(decoder, temperature):
    model, draws = random_model(decoder), 4000
    latents = random_latents(1).expand(draws, -1)
    piano_roll = model.decode(latents, temperature, generator=seeded(0)).piano_roll
    with torch.no_grad():
        logits = model(piano_roll, latents=latents).logits
    probabilities = torch.softmax(logits / temperature, -1)
    drawn = F.one_hot(patterns_of(piano_roll), NUM_PATTERNS)
    # Whatever came before, a pattern is drawn as often as it is likely: the differences average 0.
    deviation = probabilities * (1 - probabilities)
    z_scores = (drawn - probabilities).sum(0) / deviation.sum(0).sqrt().clamp(min=1)
    assert z_scores.abs().max() < 5


@both_decoders
def test_greedy_drums_do_not_depend_on_the_rest_of_the_batch(decoder):
    model, latents = random_model(decoder), random_latents(20)
    together = model.decode(latents, temperature=0).piano_roll
    alone = [model.decode(latent[None], temperature=0).piano_roll for latent in latents]
    assert torch.equal(together, torch.cat(alone))


MAKERS = {
    "decode": lambda model, **how: model.decode(random_latents(4).requires_grad_(), **how),
    "sample": lambda model, **how: model.sample(4, **how),
    "reconstruct": lambda model, **how: model.reconstruct(random_rolls(4), **how),
    "interpolate": lambda model, **how: model.interpolate(*random_rolls(2), num_steps=4, **how),
}
all_makers = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)


@all_makers
@both_decoders
def test_drums_are_piano_rolls_on_the_grid(decoder, make):
    output = make(random_model(decoder), generator=seeded(0))
    assert list(output) == ["piano_roll", "timing"]
    assert (output.piano_roll.dtype, output.timing.dtype) == (torch.uint8, torch.float32)
    assert output.piano_roll.shape == output.timing.shape == (4, NUM_DRUMS, STEPS)
    assert output.piano_roll.unique().tolist() == [0, 100]
    assert not output.timing.any()


@all_makers
def test_the_same_seed_makes_the_same_drums_and_another_seed_others(make):
    model = random_model()
    first, again, other = (make(model, generator=seeded(n)).piano_roll for n in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@all_makers
def test_without_a_generator_the_global_seed_decides(make):
    model = random_model()
    made = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        made.append(make(model).piano_roll)
    assert torch.equal(made[0], made[1])
    assert not torch.equal(made[0], made[2])


@all_makers
def test_making_drums_keeps_nothing_for_a_backward_pass(make):
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(kept.append, lambda kept: kept):
        make(random_model())
        assert kept == []
        random_model()(random_rolls())
        assert kept != []


def test_sampled_latents_come_from_the_prior():
    model, seen = random_model(), []
    model.conductor.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    model.sample(10_000, generator=seeded(0))
    assert seen[0].mean(0).abs().max() < 5 / math.sqrt(10_000)
    torch.testing.assert_close(seen[0].std(0), torch.ones(LATENT_SIZE), rtol=0.04, atol=0)


def test_reconstruct_decodes_the_posterior_mean():
    model = random_model()
    mean = model.encode(random_rolls()).mean
    expected = model.decode(mean, generator=seeded(0)).piano_roll
    made = model.reconstruct(random_rolls(), generator=seeded(0)).piano_roll
    assert torch.equal(made, expected)


@pytest.mark.parametrize("num_steps", [2, 5])
def test_interpolation_starts_and_ends_with_the_reconstructions(num_steps):
    model, ends = random_model(), random_rolls(2)
    made = model.interpolate(*ends, num_steps=num_steps, temperature=0).piano_roll
    assert made.shape == (num_steps, NUM_DRUMS, STEPS)
    assert torch.equal(made[[0, -1]], model.reconstruct(ends, temperature=0).piano_roll)


@both_decoders
def test_a_bfloat16_model_scores_and_makes_drums(decoder):
    model = random_model(decoder).to(torch.bfloat16)
    output = model(random_rolls())
    assert output.logits.dtype == torch.bfloat16
    assert {output[name].dtype for name in ("loss", "mean", "std", "latents")} == {torch.float32}
    expected = model.float()(random_rolls(), latents=output.latents)
    torch.testing.assert_close(output.loss, expected.loss, rtol=0.02, atol=0)
    assert model.to(torch.bfloat16).sample(3).piano_roll.shape == (3, NUM_DRUMS, STEPS)


@both_decoders
def test_a_batch_is_learnt_by_heart(decoder):
    torch.manual_seed(0)
    sizes = SIZES | {"encoder_hidden_size": 32, "conductor_hidden_size": 32, "latent_size": 16}
    config = MusicVAEConfig(decoder=decoder, **sizes | {"decoder_hidden_size": 64}, max_beta=0)
    model, piano_roll = MusicVAEModel(config), random_rolls(8)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(200):
        optimizer.zero_grad()
        output = model(piano_roll)
        output.loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    assert output.reconstruction_loss.max() < 0.5  # of 12 steps; guessing costs 12 ln 8 = 25
    assert torch.equal(model.reconstruct(piano_roll, temperature=0).piano_roll > 0, piano_roll > 0)


# What it refuses


WRONG_ROLLS = {
    "float": random_rolls().float(),
    "bool": random_rolls() > 0,
    "no batch": random_rolls()[0],
    "drums": random_rolls(num_drums=NUM_DRUMS + 1),
    "steps": random_rolls(steps=STEPS + 1),
    "transposed": random_rolls().transpose(1, 2),
}


@pytest.mark.parametrize("method", ["forward", "encode", "reconstruct"])
@pytest.mark.parametrize("piano_roll", WRONG_ROLLS.values(), ids=WRONG_ROLLS)
def test_a_wrong_piano_roll_is_refused(method, piano_roll):
    found = re.escape(f"piano_roll: found {piano_roll.dtype} {tuple(piano_roll.shape)}, expected")
    with pytest.raises(ValueError, match=found):
        getattr(random_model(), method)(piano_roll)


WRONG_ENDS = {
    "float": random_rolls()[0].float(),
    "batch": random_rolls(),
    "drums": random_rolls(num_drums=NUM_DRUMS + 1)[0],
    "steps": random_rolls(steps=STEPS + 1)[0],
}


@pytest.mark.parametrize("wrong", WRONG_ENDS.values(), ids=WRONG_ENDS)
@pytest.mark.parametrize("name", ["start", "end"])
def test_a_wrong_end_of_an_interpolation_is_refused(name, wrong):
    ends = dict(zip(("start", "end"), random_rolls(2), strict=True)) | {name: wrong}
    found = re.escape(f"{name}: found {wrong.dtype} {tuple(wrong.shape)}, expected")
    with pytest.raises(ValueError, match=found):
        random_model().interpolate(**ends, num_steps=3)


WRONG_LATENTS = {
    "width": torch.zeros(5, LATENT_SIZE + 1),
    "no batch": torch.zeros(LATENT_SIZE),
    "three axes": torch.zeros(5, 1, LATENT_SIZE),
}


@both_decoders
@pytest.mark.parametrize("latents", WRONG_LATENTS.values(), ids=WRONG_LATENTS)
def test_latents_of_a_wrong_shape_are_refused(latents, decoder):
    model = random_model(decoder)
    found = re.escape(f"latents: found shape {tuple(latents.shape)}, expected")
    with pytest.raises(ValueError, match=found):
        model.decode(latents)
    with pytest.raises(ValueError, match=found):
        model(random_rolls(), latents=latents)


@both_decoders
def test_a_latent_for_each_piano_roll_is_asked_for(decoder):
    with pytest.raises(ValueError, match=rf"latents: found shape \(1, {LATENT_SIZE}\), expected"):
        random_model(decoder)(random_rolls(5), latents=random_latents(1))


@all_makers
@pytest.mark.parametrize("temperature", [-1.0, -1e-9, math.nan, math.inf])
def test_a_temperature_that_is_none_is_refused(make, temperature):
    with pytest.raises(ValueError, match=f"temperature: found {temperature}"):
        make(random_model(), temperature=temperature)


@pytest.mark.parametrize("num_samples", [0, -1])
def test_a_number_of_samples_below_one_is_refused(num_samples):
    with pytest.raises(ValueError, match=f"num_samples: found {num_samples}"):
        random_model().sample(num_samples)


@pytest.mark.parametrize("num_steps", [1, 0])
def test_an_interpolation_without_two_ends_is_refused(num_steps):
    with pytest.raises(ValueError, match=f"num_steps: found {num_steps}"):
        random_model().interpolate(*random_rolls(2), num_steps=num_steps)


# How it is kept


@both_dtypes
@both_decoders
def test_a_saved_model_loads_bit_for_bit(decoder, dtype, tmp_path):
    model = random_model(decoder).to(dtype)
    model.save_pretrained(tmp_path)
    for loader in (MusicVAEModel, AutoModel):
        loaded = loader.from_pretrained(tmp_path)
        assert type(loaded) is MusicVAEModel
        assert loaded.dtype == dtype
        torch.testing.assert_close(loaded.state_dict(), model.state_dict(), rtol=0, atol=0)
        made, expected = (m.sample(4, generator=seeded(0)) for m in (loaded, model))
        assert torch.equal(made.piano_roll, expected.piano_roll)


def test_a_config_whose_sizes_disagree_with_the_weights_is_refused(tmp_path):
    random_model().save_pretrained(tmp_path)
    MusicVAEConfig(**SIZES | {"latent_size": LATENT_SIZE + 1}).save_pretrained(tmp_path)
    with pytest.raises(RuntimeError, match="mismatched_sizes"):
        MusicVAEModel.from_pretrained(tmp_path)


def test_whatever_a_model_holds_is_saved():
    model = random_model()
    held = dict(model.named_parameters()) | dict(model.named_buffers())
    assert set(held) == set(model.state_dict())


STRANGER = """
import sys

import numpy as np
import torch


class NotInstalled:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("modeling_musicvae", "processing"):
            raise ModuleNotFoundError(name)


sys.meta_path.insert(0, NotInstalled())

from transformers import AutoConfig, AutoModel, AutoProcessor

folder = sys.argv[1]
config = AutoConfig.from_pretrained(folder, trust_remote_code=True)
model = AutoModel.from_pretrained(folder, trust_remote_code=True)
processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
for loaded in (config, model, processor):
    assert type(loaded).__module__.startswith("transformers_modules."), type(loaded)
assert type(config) is type(model.config)
drums = model.sample(4, generator=torch.Generator().manual_seed(0))
assert processor.bars == config.bars
np.save(sys.argv[2], drums.piano_roll.numpy())
"""


def test_an_exported_folder_loads_and_samples_where_nothing_of_ours_is_installed(tmp_path):
    folder = tmp_path / "exported-model"
    model = random_model()
    model.save_pretrained(folder)
    MusicVAEProcessor(bars=BARS, steps_per_bar=STEPS_PER_BAR).save_pretrained(folder)
    script, made = tmp_path / "stranger.py", tmp_path / "made.npy"
    script.write_text(STRANGER)
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "huggingface")}
    command = [sys.executable, "-I", script, folder, made]
    run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    expected = model.sample(4, generator=seeded(0)).piano_roll
    assert np.array_equal(np.load(made), expected.numpy())
