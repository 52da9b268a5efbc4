"""The benchmarks run and print figures, and the matrix products that they time are the model's."""

import importlib
import re
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from training_runs import tiny_model

from modeling_musicvae import MusicVAEConfig, MusicVAEModel
from processing import MusicVAEProcessor

FIGURE = re.compile(r"^(.+?) +([\d.e+-]+) \(([\d.e+-]+) to ([\d.e+-]+)\) (.+)$", re.MULTILINE)


@pytest.fixture
def benchmark(monkeypatch):
    """Imports a module of `benchmarks/`, which is no package."""
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "benchmarks")
    num_threads = torch.get_num_threads()
    yield importlib.import_module
    torch.set_num_threads(num_threads)


@pytest.mark.parametrize(
    ("script", "options", "num_figures"),
    [
        pytest.param(
            "benchmark_decode",
            "--repetitions 1",
            10,
            id="decode",
            marks=pytest.mark.slow,  # it exports a model
        ),
        pytest.param(
            "benchmark_training", "--batch_size 2 --steps 1 --threads 1", 16, id="training"
        ),
        pytest.param(
            "benchmark_data",
            "--repetitions 1 --train_steps 1",
            8,
            id="data",
            marks=pytest.mark.slow,  # six new processes, which all import torch
        ),
    ],
)
def test_a_benchmark_prints_the_machine_and_positive_figures(
    benchmark, capsys, script, options, num_figures
):
    benchmark(script).main(options.split())
    printed = capsys.readouterr().out
    assert f"torch {torch.__version__}" in printed
    figures = FIGURE.findall(printed)
    assert len(figures) == num_figures
    for _, median, low, high, _ in figures:
        assert 0 < float(low) <= float(median) <= float(high)


@pytest.mark.slow  # a training run
def test_the_benchmark_of_convergence_trains_until_the_elbo_is_reached(benchmark, capfd):
    options = ["--config", "quickstart", "--eval_steps", "1", "--elbo", "-100000"]
    benchmark("benchmark_convergence").main(options)
    lines = [line for line in capfd.readouterr().out.splitlines() if line.startswith("step")]
    assert len(lines) == 1
    assert re.fullmatch(r"step 1, ELBO -\d+\.?\d*: \d+\.\d minutes", lines[0])


@pytest.mark.slow  # it exports a model
def test_the_benchmark_of_quantization_prints_figures_of_both_decoders(benchmark, capsys, tmp_path):
    tiny_model().save_pretrained(tmp_path)
    MusicVAEProcessor().save_pretrained(tmp_path)
    benchmark("benchmark_quantization").main(["--model", str(tmp_path), "--data", "demo"])
    printed = capsys.readouterr().out
    for bits in (32, 8):
        assert re.search(rf"^{bits} bits, greedy, hit_f1: 0\.\d+$", printed, re.MULTILINE)
        assert re.search(rf"^{bits} bits, sampled, timing_mae_ms: \d+\.\d+$", printed, re.MULTILINE)
        assert re.search(rf"^{bits} bits, ELBO: -\d+\.\d+ nats$", printed, re.MULTILINE)


@pytest.mark.parametrize("encoder_num_layers", [1, 2])
@pytest.mark.parametrize("decoder", ["hierarchical", "flat"])
def test_the_products_are_those_of_the_model_without_the_needless_ones(
    benchmark, decoder, encoder_num_layers
):
    batch_size, steps, drums, size = 3, 6, 3, 7
    config = MusicVAEConfig(
        bars=2,
        steps_per_bar=3,
        num_drums=drums,
        velocity_bins=0,
        timing_bins=0,
        hit_features=False,
        decoder=decoder,
        latent_size=5,
        encoder_hidden_size=size,
        encoder_num_layers=encoder_num_layers,
        conductor_hidden_size=4,
        decoder_hidden_size=6,
        decoder_num_layers=3,
    )
    model = MusicVAEModel(config).double()  # in which PyTorch's LSTM is made of plain products
    piano_roll = torch.ones(batch_size, drums, steps, dtype=torch.uint8)
    with FlopCounterMode(display=False) as counter:
        model(piano_roll).loss.backward()

    # The model takes each of these twice, forward and for the gradient of the weight.
    encoder_input = 2 * batch_size * steps * (drums + 1) * 4 * size
    encoder_zeros = 2 * batch_size * size * 4 * size
    conductor_silence = 2 * batch_size * 2 * 1 * 4 * 4
    needless = 2 * 2 * (encoder_input + encoder_num_layers * encoder_zeros)
    needless += 2 * conductor_silence if decoder == "hierarchical" else 0

    products = benchmark("matrix_products").matrix_products(config, batch_size)
    assert sum(p.flops for p in products) == counter.get_total_flops() - needless
