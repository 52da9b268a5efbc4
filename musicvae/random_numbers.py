"""Seeded random numbers that are the same in NumPy and in the browser: see docs/onnx.md."""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

NOISE_STREAM = 0
PATH_STREAM = 1
DRAWS_STREAM = 2  # of the first window; those of the others follow it
KERNEL_STREAM = 2**32 - 1


def uniforms(seed: int, stream: int, count: int) -> np.ndarray:
    """float32 (count,), evenly distributed in [0, 1).

    Args:
        seed: 0 to 2 ** 32 - 1.
        stream: which of the independent sequences of the seed.
        count: numbers to draw; fewer are the beginning of more.
    """
    index = np.arange(count, dtype=np.uint32)
    return ((_mix(_mix(index) ^ _key(seed, stream)) >> 8) * 2.0**-24).astype(np.float32)


def normals(seed: int, stream: int, count: int) -> np.ndarray:
    """float64 (count,), standard normal, after Box and Muller; arguments as for `uniforms`."""
    draws = uniforms(seed, stream, count + count % 2).astype(np.float64)
    radius = np.sqrt(-2 * np.log1p(-draws[0::2]))
    angle = 2 * np.pi * draws[1::2]
    pairs = np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1)
    return pairs.reshape(-1)[:count]


class SeededDraws:
    """The `generator` of one call of a verb of `MusicVAEModel`, which then draws the numbers that
    `OnnxModel` draws: each groove has its own seed, and each window of a song its own stream.

    Attributes:
        seed: of the first groove, or of the song; 0 to 2 ** 32 - 1.
        one_song: whether a batch is the windows of one song, and not grooves of the seeds from
            `seed` on.
        window: the next to be drawn.
        noise_stream: of the noise that is drawn next.
    """

    def __init__(self, seed: int, one_song: bool, window: int = 0):
        self.seed, self.one_song, self.window = seed, one_song, window
        self.noise_stream = NOISE_STREAM

    def randn(self, shape: tuple[int, int]) -> "torch.Tensor":
        """Noise of latents, float32 (grooves, latent_size): of where they start, then of where
        they go."""
        import torch

        seeds = range(self.seed, self.seed + shape[0])
        noise = [normals(seed, self.noise_stream, shape[1]) for seed in seeds]
        self.noise_stream = PATH_STREAM
        return torch.from_numpy(np.stack(noise)).float()

    def rand(self, shape: tuple[int, ...]) -> "torch.Tensor":
        """Draws, float32 (steps, batch, num_draws): of a window of each groove, or of the next
        windows of the song. Or what chooses a kernel for each groove, float32 (grooves,)."""
        import torch

        if len(shape) == 1:
            seeds = range(self.seed, self.seed + shape[0])
            choices = [uniforms(seed, KERNEL_STREAM, 1) for seed in seeds]
            return torch.from_numpy(np.concatenate(choices))
        steps, batch_size, num_draws = shape
        rows = range(batch_size)
        if self.one_song:
            places = [(self.seed, self.window + row) for row in rows]
        else:
            places = [(self.seed + row, self.window) for row in rows]
        self.window += batch_size if self.one_song else 1
        draws = [
            uniforms(seed, DRAWS_STREAM + window, steps * num_draws).reshape(steps, num_draws)
            for seed, window in places
        ]
        return torch.from_numpy(np.stack(draws, 1))


def _key(seed: int, stream: int) -> np.ndarray:
    return _mix(_mix(_uint32(seed)) + _uint32((stream + 1) * 0x9E3779B9))


def _uint32(number: int) -> np.ndarray:
    return np.array([number % 2**32], np.uint32)  # arrays wrap around without a warning


def _mix(x: np.ndarray) -> np.ndarray:
    """The finalizer lowbias32 of Chris Wellons, a bijection of uint32."""
    x = (x ^ (x >> 16)) * np.uint32(0x7FEB352D)
    x = (x ^ (x >> 15)) * np.uint32(0x846CA68B)
    return x ^ (x >> 16)
