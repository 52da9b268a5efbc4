"""MusicVAEConfig: the architecture of a MusicVAE and the objective that it is trained on."""

import math
from typing import Any, Literal

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

# The meaning of fields that older saved configs do not have, and the new names of those that they
# have; None: dropped.
LEGACY_DEFAULTS = {
    "lookback_bars": 0,
    "encoder_conditioning_size": 0,
    "input_dropout": 0.0,
    "latent_kernels": 0,
}
RENAMED = {
    "note_dropout": "encoder_hit_dropout",
    "sampling_schedule": "scheduled_sampling_schedule",
    "sampling_rate": "scheduled_sampling_rate",
    "sampling_method": None,
}
DTYPES = ("float32", "float16", "bfloat16", "float64")

# Of sizes: far beyond any model of drums, so that a stranger's config cannot ask for all memory.
RANGES = {
    "bars": (1, 256),
    "steps_per_bar": (1, 1920),
    "num_drums": (1, 128),
    "nade_hidden_size": (1, 4096),
    "latent_size": (1, 4096),
    "latent_kernels": (0, 4096),
    "encoder_hidden_size": (1, 8192),
    "encoder_num_layers": (1, 16),
    "encoder_conditioning_size": (0, 4096),
    "conductor_hidden_size": (1, 8192),
    "conductor_num_layers": (1, 16),
    "decoder_hidden_size": (1, 8192),
    "decoder_num_layers": (1, 16),
    "lookback_bars": (0, 64),
    "velocity_bins": (0, 127),
    "timing_bins": (0, 999),
}
MAX_STEPS, MAX_STYLES = 1 << 14, 64
# By which transformers reads other files than a MusicVAE has, or fetches code to run.
LOADING_FIELDS = (
    "quantization_config",
    "transformers_weights",
    "attn_implementation",
    "_attn_implementation",
    "experts_implementation",
    "_experts_implementation",
)


@strict
class MusicVAEConfig(PreTrainedConfig):
    """Sizes of a MusicVAE over drums and the terms of its ELBO.

    Args:
        bars: bars in a sequence.
        steps_per_bar: steps in a bar.
        num_drums: drums in a piano roll; a step's hits are one of 2 ** num_drums patterns.
        output: what is predicted at a step: "categorical", one of the patterns and then a class
            for the velocity and the timing of each hit; "groove", GrooVAE's hits, velocities and
            offsets; "nade", hits alone, one drum after another.
        velocity_bins: classes of a categorical velocity; 0: every hit is equally loud.
        timing_bins: classes of a categorical timing, an odd number, so that "on the grid" is one;
            0: every hit is on the grid.
        hit_features: whether a pattern's logit and its decoder input have a term for each of its
            hits, so that rare patterns are learned from frequent ones with hits in common.
            Magenta's models have none.
        nade_hidden_size: width of the hidden layer of the NADE.
        input_transform: transformation of the encoder's input, which the decoder learns to undo:
            "none"; "humanize", no velocity and no timing; "tap", the loudest hit of each step on
            one drum; "tap_fixed_velocity", the same without velocity; "remove_drums", without
            `removed_drums`.
        removed_drums: the drums that "remove_drums" takes away; [2] is the closed hi-hat.
        encoder_hit_dropout: in training, hits are dropped from the encoder's input, soft ones
            rather than loud ones, with a probability up to this.
        hits_as_controls: whether the decoder is conditioned on the hits of each step, and learns
            their velocity and timing alone.
        input_as_controls: whether the decoder is conditioned on the encoder's input at each step,
            taps or the drums that are not removed, so that z need not carry it.
        encoder_conditioning_size: width of a projection of the encoder's output at each step, on
            which the decoder is conditioned at that step; 0: none. Only with an input_transform:
            else the encoder's output has the target.
        styles: names of the styles of which the model has a latent distribution, see
            `MusicVAEModel.fit_style_distributions`.
        latent_size: width of z.
        latent_kernels: kernels of the distribution of latents that new drums are drawn from, see
            `MusicVAEModel.fit_latent_distribution`; 0: it is one Gaussian.
        encoder_hidden_size: width of the encoder's LSTM in each direction.
        encoder_num_layers: its layers.
        decoder: "hierarchical", where a conductor makes one embedding per bar and nothing else but
            the previous frame and the look-back crosses a bar line, or "flat", one LSTM over all
            steps.
        lookback_bars: how many bars back the decoder's input goes: it has the frames of the same
            step one bar earlier, two bars earlier and so on; 0: none, as in Magenta's models.
        conductor_hidden_size: width of the conductor's LSTM and of its embeddings.
        conductor_num_layers: its layers.
        decoder_hidden_size: width of the decoder's LSTM.
        decoder_num_layers: its layers.
        dropout: share of the features of encoder and decoder, before their last linear layers,
            that are dropped in training.
        input_dropout: probability in training with which the decoder's previous frame at a step,
            or a frame that it looks back at, is replaced by silence.
        free_bits: bits of KL divergence in a sequence that cost nothing.
        max_beta: weight of the KL divergence beyond them, when fully annealed.
        beta_rate: beta at a training step is max_beta * (1 - beta_rate ** step).
        scheduled_sampling_schedule: probability with which, at a training step, the decoder's
            previous frame is its own draw instead of the target (scheduled sampling, Bengio et al.
            2015), as a function of the rate: "constant", rate; "exponential", 1 - rate ** step;
            "inverse_sigmoid", 1 - rate / (rate + exp(step / rate)).
        scheduled_sampling_rate: the rate; a constant 0 is teacher forcing.

    Raises:
        StrictDataclassError: a field has the wrong type or lies out of range.
    """

    model_type = "musicvae"

    bars: int = 4
    steps_per_bar: int = 16
    num_drums: int = 9
    output: Literal["categorical", "groove", "nade"] = "categorical"
    velocity_bins: int = 8
    timing_bins: int = 9
    hit_features: bool = True
    nade_hidden_size: int = 128
    input_transform: Literal["none", "humanize", "tap", "tap_fixed_velocity", "remove_drums"] = (
        "none"
    )
    removed_drums: list[int] | tuple[int, ...] = (2,)
    encoder_hit_dropout: int | float = 0.0
    hits_as_controls: bool = False
    input_as_controls: bool = False
    encoder_conditioning_size: int = 0
    styles: list[str] | tuple[str, ...] = ()
    latent_size: int = 256
    latent_kernels: int = 256
    encoder_hidden_size: int = 256
    encoder_num_layers: int = 1
    decoder: Literal["hierarchical", "flat"] = "hierarchical"
    lookback_bars: int = 3
    conductor_hidden_size: int = 256
    conductor_num_layers: int = 2
    decoder_hidden_size: int = 256
    decoder_num_layers: int = 2
    dropout: int | float = 0.2
    input_dropout: int | float = 0.1
    free_bits: int | float = 48.0
    max_beta: int | float = 0.2
    beta_rate: int | float = 0.999
    scheduled_sampling_schedule: Literal["constant", "exponential", "inverse_sigmoid"] = "constant"
    scheduled_sampling_rate: int | float = 0.0

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any):
        """Reads a saved config; an older one means what it meant when it was saved."""
        fields = {RENAMED.get(name, name): value for name, value in config_dict.items()}
        fields.pop(None, None)
        if "latent_kernels" not in fields:  # an older model's styles had Gaussians
            fields["styles"] = []
        for name in ("dtype", "torch_dtype"):
            found = fields.get(name)
            if found is not None and str(found).removeprefix("torch.") not in DTYPES:
                raise ValueError(f"{name}: found {found!r:.80}, expected one of {DTYPES}")
        for name in LOADING_FIELDS:
            if fields.get(name) is not None:
                raise ValueError(f"{name}: found one, expected none")
        return super().from_dict(LEGACY_DEFAULTS | fields, **kwargs)

    def validate_sizes(self):
        for name, (least, most) in RANGES.items():
            if not least <= getattr(self, name) <= most:
                raise ValueError(f"{name}: found {getattr(self, name)}, expected {least} to {most}")
        if self.num_steps > MAX_STEPS:
            raise ValueError(
                f"bars * steps_per_bar: found {self.num_steps}, expected at most {MAX_STEPS}"
            )

    def validate_output(self):
        if self.output == "categorical" and self.num_drums > 12:
            raise ValueError(
                f"num_drums: found {self.num_drums}, expected at most 12: the categorical output "
                "has 2 ** num_drums classes"
            )
        if self.timing_bins and self.timing_bins % 2 == 0:
            raise ValueError(f"timing_bins: found {self.timing_bins}, expected 0 or an odd number")

    def validate_input_transform(self):
        if self.input_transform.startswith("tap") and self.num_drums < 4:
            raise ValueError(f"num_drums: found {self.num_drums}, expected 4 or more for taps")
        drums = range(self.num_drums)
        if self.input_transform == "remove_drums" and (
            not self.removed_drums or not set(self.removed_drums) < set(drums)
        ):
            raise ValueError(
                f"removed_drums: found {list(self.removed_drums)}, expected some of the drums 0 to "
                f"{self.num_drums - 1}, but not all"
            )
        if self.hits_as_controls and not self.models_expression:
            raise ValueError(
                "hits_as_controls: found True, expected False: the output has hits alone"
            )
        if self.hits_as_controls and self.input_transform not in ("none", "humanize"):
            raise ValueError(
                f"hits_as_controls: found True, expected False: with input_transform "
                f"{self.input_transform!r} the hits are the decoder's target"
            )
        if self.input_as_controls and self.input_transform == "none":
            raise ValueError(
                "input_as_controls: found True, expected False: with input_transform 'none' the "
                "decoder would be conditioned on its target"
            )
        if self.encoder_conditioning_size and self.input_transform == "none":
            raise ValueError(
                f"encoder_conditioning_size: found {self.encoder_conditioning_size}, expected 0: "
                "with input_transform 'none' the decoder would be conditioned on its target"
            )

    def validate_styles(self):
        if len(self.styles) > MAX_STYLES:
            raise ValueError(f"styles: found {len(self.styles)}, expected at most {MAX_STYLES}")
        if self.styles and not self.latent_kernels:
            raise ValueError(
                f"styles: found {list(self.styles)}, expected none where latent_kernels is 0"
            )
        if "" in self.styles or len(set(self.styles)) < len(self.styles):
            raise ValueError(f"styles: found {list(self.styles)}, expected different names")

    def validate_dropout(self):
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout: found {self.dropout}, expected 0 to 1, without 1")
        for name in ("input_dropout", "encoder_hit_dropout"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}: found {getattr(self, name)}, expected 0 to 1")

    def validate_objective(self):
        for name in ("free_bits", "max_beta"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name}: found {getattr(self, name)}, expected 0 or more, finite")
        if not 0 <= self.beta_rate < 1:
            raise ValueError(f"beta_rate: found {self.beta_rate}, expected 0 to 1, without 1")

    def validate_scheduled_sampling(self):
        schedule, rate = self.scheduled_sampling_schedule, self.scheduled_sampling_rate
        least, most = (1, math.inf) if schedule == "inverse_sigmoid" else (0, 1)
        if not least <= rate <= most or rate == math.inf:
            raise ValueError(
                f"scheduled_sampling_rate: found {rate}, expected {least} to {most} for the "
                f"{schedule} schedule"
            )

    @property
    def num_steps(self) -> int:
        """Steps in a sequence."""
        return self.bars * self.steps_per_bar

    @property
    def num_patterns(self) -> int:
        """Classes of the categorical output."""
        return 2**self.num_drums

    @property
    def models_expression(self) -> bool:
        """Whether the output has more than hits."""
        bins = self.velocity_bins + self.timing_bins
        return self.output == "groove" or (self.output == "categorical" and bins > 0)

    @property
    def reads_velocity(self) -> bool:
        """Whether the velocities that the encoder is given mean anything."""
        return self.input_transform not in ("humanize", "tap_fixed_velocity")

    @property
    def is_conditioned(self) -> bool:
        """Whether the decoder is conditioned on anything at each step."""
        return self.hits_as_controls or self.input_as_controls or self.encoder_conditioning_size > 0

    @property
    def num_segments(self) -> int:
        """Stretches that the decoder starts anew: the bars, or one if it is flat."""
        return self.bars if self.decoder == "hierarchical" else 1
