"""MusicVAEConfig: the architecture of a MusicVAE and the objective that it is trained on."""

import math
from typing import Literal

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig


@strict
class MusicVAEConfig(PreTrainedConfig):
    """Sizes of a MusicVAE over drums and the terms of its ELBO.

    Args:
        bars: bars in a sequence.
        steps_per_bar: steps in a bar.
        num_drums: drums in a piano roll; a step's hits are one of 2 ** num_drums patterns.
        output: what is predicted at a step: "categorical", one of the patterns.
        velocity_bins: bins of a hit's velocity; 0, hits alone, is what the output offers.
        timing_bins: bins of a hit's timing; 0, on the grid, is what the output offers.
        latent_size: width of z.
        encoder_hidden_size: width of the encoder's LSTM in each direction.
        encoder_num_layers: its layers.
        decoder: "hierarchical", where a conductor makes one embedding a bar and nothing else but
            the last pattern crosses a bar line, or "flat", one LSTM over all steps.
        conductor_hidden_size: width of the conductor's LSTM and of its embeddings.
        conductor_num_layers: its layers.
        decoder_hidden_size: width of the decoder's LSTM.
        decoder_num_layers: its layers.
        free_bits: bits of KL divergence in a sequence that cost nothing.
        max_beta: weight of the KL divergence beyond them, when fully annealed.
        beta_rate: beta at a training step is max_beta * (1 - beta_rate ** step).

    Raises:
        StrictDataclassError: a field has the wrong type or lies out of range.
    """

    model_type = "musicvae"

    bars: int = 4
    steps_per_bar: int = 16
    num_drums: int = 9
    output: Literal["categorical"] = "categorical"
    velocity_bins: int = 0
    timing_bins: int = 0
    latent_size: int = 256
    encoder_hidden_size: int = 512
    encoder_num_layers: int = 1
    decoder: Literal["hierarchical", "flat"] = "hierarchical"
    conductor_hidden_size: int = 256
    conductor_num_layers: int = 2
    decoder_hidden_size: int = 256
    decoder_num_layers: int = 2
    free_bits: int | float = 48.0
    max_beta: int | float = 0.2
    beta_rate: int | float = 0.0

    def validate_sizes(self):
        sizes = ["bars", "steps_per_bar", "num_drums", "latent_size"]
        sizes += [f"{part}_hidden_size" for part in ("encoder", "conductor", "decoder")]
        sizes += [f"{part}_num_layers" for part in ("encoder", "conductor", "decoder")]
        for name in sizes:
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: found {getattr(self, name)}, expected at least 1")
        if self.num_drums > 12:
            raise ValueError(
                f"num_drums: found {self.num_drums}, expected at most 12: the categorical output "
                "has 2 ** num_drums classes"
            )

    def validate_output(self):
        for name in ("velocity_bins", "timing_bins"):
            if getattr(self, name) != 0:
                raise ValueError(f"{name}: found {getattr(self, name)}, expected 0: hits alone")

    def validate_objective(self):
        for name in ("free_bits", "max_beta"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name}: found {getattr(self, name)}, expected 0 or more, finite")
        if not 0 <= self.beta_rate < 1:
            raise ValueError(f"beta_rate: found {self.beta_rate}, expected 0 to 1, without 1")

    @property
    def num_steps(self) -> int:
        """Steps in a sequence."""
        return self.bars * self.steps_per_bar

    @property
    def num_patterns(self) -> int:
        """Classes of the categorical output."""
        return 2**self.num_drums

    @property
    def num_segments(self) -> int:
        """Stretches that the decoder starts anew: the bars, or one if it is flat."""
        return self.bars if self.decoder == "hierarchical" else 1
