"""Helpers of the tests: MIDI files, small models, drums, and Magenta's variables."""

import struct
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from modeling_musicvae import MusicVAEConfig, MusicVAEModel
from musicvae.evaluation.windows import Windows

# MIDI files, byte by byte, so that they can be as wrong as a test needs them


# Of info.csv in the Groove MIDI Dataset.
INFO_COLUMNS = [
    "drummer",
    "session",
    "id",
    "style",
    "bpm",
    "beat_type",
    "time_signature",
    "midi_filename",
    "audio_filename",
    "duration",
    "split",
]


KICK, SNARE, CLOSED_HI_HAT = 36, 38, 42
DRUM_CHANNEL = 9

Event = tuple[int, bytes]  # a message and the tick at which it happens


def note_on(
    tick: int, pitch: int = KICK, velocity: int = 100, channel: int = DRUM_CHANNEL
) -> Event:
    return tick, bytes([0x90 | channel, pitch, velocity])


def note_off(tick: int, pitch: int = KICK, channel: int = DRUM_CHANNEL) -> Event:
    return tick, bytes([0x80 | channel, pitch, 64])


def tempo(tick: int, microseconds_per_quarter: int) -> Event:
    return tick, b"\xff\x51\x03" + microseconds_per_quarter.to_bytes(3, "big")


def time_signature(tick: int, numerator: int, denominator: int) -> Event:
    return tick, bytes([0xFF, 0x58, 4, numerator, denominator.bit_length() - 1, 24, 8])


def ending_at(tick: int) -> Event:
    """A text so that the track, one tick longer than its last event, ends at a tick."""
    return tick - 1, b"\xff\x01\x00"


def variable_length(number: int) -> bytes:
    """A number as MIDI writes it: seven bits a byte, all but the last with the top bit set."""
    data = [number & 0x7F]
    while number := number >> 7:
        data.append(number & 0x7F | 0x80)
    return bytes(reversed(data))


def track(*events: Event) -> bytes:
    """A track of events in any order; those of one tick keep theirs."""
    data, now = b"", 0
    for tick, message in sorted(events, key=lambda event: event[0]):
        data += variable_length(tick - now) + message
        now = tick
    return chunk(b"MTrk", data + b"\x01\xff\x2f\x00")


def chunk(name: bytes, data: bytes) -> bytes:
    return name + struct.pack(">L", len(data)) + data


def riff(kind: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
    """A RIFF container of chunks, each a name and its data."""
    data = b"".join(
        name + struct.pack("<L", len(data)) + data + b"\0" * (len(data) % 2)
        for name, data in chunks
    )
    return b"RIFF" + struct.pack("<L", 4 + len(data)) + kind + data


def midi_file(*tracks: bytes, file_type: int = 1, division: int = 480) -> bytes:
    return chunk(b"MThd", struct.pack(">HHH", file_type, len(tracks), division)) + b"".join(tracks)


def drum_file(*events: Event, division: int = 480) -> bytes:
    """A file of type 0 with the given events."""
    return midi_file(track(*events), file_type=0, division=division)


# Models small enough to test by the dozen, and drums for them


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
    "input_dropout": 0.0,
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


# Windows of drums as the evaluation has them


def windows_of(
    piano_roll: torch.Tensor | list,
    timing: torch.Tensor | list | None = None,
    file: Sequence[int] | None = None,
    bpm: float = 120,
) -> Windows:
    """Windows of these drums, each of a recording of its own unless `file` says otherwise."""
    piano_roll = torch.as_tensor(piano_roll, dtype=torch.uint8)
    timing = torch.zeros(piano_roll.shape) if timing is None else torch.as_tensor(timing)
    number = len(piano_roll)
    file = torch.arange(number) if file is None else torch.tensor(file)
    return Windows(piano_roll, timing, torch.full((number,), bpm), [""] * number, file)


def random_windows(number: int = 6, steps: int = 15, num_drums: int = 4, files: int = 3) -> Windows:
    rolls = random_rolls(number, steps, num_drums)
    return windows_of(rolls, random_timing(rolls), [index % files for index in range(number)])


# Small models of all nine drums: two bars of eight steps.
NINE_DRUMS = {"bars": 2, "steps_per_bar": 8, "num_drums": 9}
NO_EXPRESSION = {"velocity_bins": 0, "timing_bins": 0}
GIVEN_HITS = {"hits_as_controls": True}


def nine_drum_model(**settings) -> MusicVAEModel:
    return random_model(**NINE_DRUMS | settings)


def nine_drum_windows(number: int = 6) -> Windows:
    return random_windows(
        number, NINE_DRUMS["bars"] * NINE_DRUMS["steps_per_bar"], NINE_DRUMS["num_drums"]
    )


# Magenta's variables: from our names and layout to theirs

Arrays = dict[str, np.ndarray]


def lstm_cells(config: MusicVAEConfig) -> dict[str, tuple[str, str]]:
    """Magenta's name of each LSTM cell, with our module and the suffix of its parameters."""
    cells = {}
    for layer in range(config.encoder_num_layers):
        for scope, suffix in (("fw", f"l{layer}"), ("bw", f"l{layer}_reverse")):
            cell = f"encoder/cell_{layer}/bidirectional_rnn/{scope}/multi_rnn_cell/cell_0"
            cells[cell] = "encoder.lstm", suffix
    decoder = "decoder"
    if config.decoder == "hierarchical":
        decoder = "core_decoder/decoder"
        for layer in range(config.conductor_num_layers):
            cells[f"decoder/hierarchical_level_0/cell_{layer}"] = "conductor.lstm", f"l{layer}"
    for layer in range(config.decoder_num_layers):
        cells[f"{decoder}/multi_rnn_cell/cell_{layer}"] = "decoder.lstm", f"l{layer}"
    return {f"{cell}/lstm_cell": ours for cell, ours in cells.items()}


def dense_layers(config: MusicVAEConfig) -> dict[str, str]:
    """Magenta's name of each dense layer, with ours."""
    layers = {"encoder/mu": "encoder.mean", "encoder/sigma": "encoder.std"}
    decoder = "decoder"
    if config.decoder == "hierarchical":
        decoder = "core_decoder/decoder"
        conductor = "conductor.initial_state.projection"
        layers["decoder/hierarchical_level_0/initial_state"] = conductor
    layers[f"{decoder}/z_to_initial_state"] = "decoder.initial_state.projection"
    layers[f"{decoder}/output_projection"] = "decoder.output"
    return layers


def nade_weights(config: MusicVAEConfig) -> dict[str, str]:
    """Magenta's name of each weight of the NADE, with ours."""
    if config.output != "nade":
        return {}
    decoder = "core_decoder/decoder" if config.decoder == "hierarchical" else "decoder"
    names = {"w_enc": "w_enc", "w_dec_t": "w_dec"}
    return {f"{decoder}/nade/{theirs}": f"decoder.head.{ours}" for theirs, ours in names.items()}


def magenta_variables(model: MusicVAEModel) -> Arrays:
    """The model's parameters: our two biases are one, and the forget gate's 1 is not part of it."""
    tensors = dict(model.state_dict())
    for module, suffix in lstm_cells(model.config).values():
        bias = tensors[f"{module}.bias_ih_{suffix}"] + tensors[f"{module}.bias_hh_{suffix}"]
        i, f, g, o = bias.chunk(4)
        tensors[f"{module}.bias_ih_{suffix}"] = torch.cat([i, f - 1, g, o])
    return in_magenta_layout(model.config, tensors)


def in_magenta_layout(config: MusicVAEConfig, tensors: dict[str, torch.Tensor]) -> Arrays:
    arrays = {}
    for theirs, (module, suffix) in lstm_cells(config).items():
        weight = [tensors[f"{module}.weight_{kind}_{suffix}"] for kind in ("ih", "hh")]
        for name, tensor in (
            ("kernel", torch.cat(weight, 1)),
            ("bias", tensors[f"{module}.bias_ih_{suffix}"]),
        ):
            i, f, g, o = tensor.chunk(4)
            arrays[f"{theirs}/{name}"] = torch.cat([i, g, f, o]).numpy().T
    for theirs, ours in dense_layers(config).items():
        arrays[f"{theirs}/kernel"] = tensors[f"{ours}.weight"].numpy().T
        arrays[f"{theirs}/bias"] = tensors[f"{ours}.bias"].numpy()
    for theirs, ours in nade_weights(config).items():
        arrays[theirs] = tensors[ours].numpy()[:, None]
    return arrays


def random_variables(**sizes) -> tuple[MusicVAEModel, Arrays]:
    """A model with random weights, and these under Magenta's names."""
    torch.manual_seed(0)
    defaults = {"latent_size": 5, "encoder_hidden_size": 6, "decoder_hidden_size": 7}
    defaults |= {"lookback_bars": 0, "latent_kernels": 0, "dropout": 0.0, "beta_rate": 0.0}
    if sizes.get("output", "categorical") == "categorical":
        defaults |= {"velocity_bins": 0, "timing_bins": 0, "hit_features": False}
    model = MusicVAEModel(MusicVAEConfig(**defaults | {"conductor_hidden_size": 8} | sizes))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return model.eval(), magenta_variables(model)
