"""Seeded random numbers that are the same in NumPy and in the browser: see docs/onnx.md."""

import numpy as np

NOISE_STREAM = 0
PATH_STREAM = 1
DRAWS_STREAM = 2


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


def _key(seed: int, stream: int) -> np.ndarray:
    return _mix(_mix(_uint32(seed)) + _uint32((stream + 1) * 0x9E3779B9))


def _uint32(number: int) -> np.ndarray:
    return np.array([number % 2**32], np.uint32)  # arrays wrap around without a warning


def _mix(x: np.ndarray) -> np.ndarray:
    """The finalizer lowbias32 of Chris Wellons, a bijection of uint32."""
    x = (x ^ (x >> 16)) * np.uint32(0x7FEB352D)
    x = (x ^ (x >> 15)) * np.uint32(0x846CA68B)
    return x ^ (x >> 16)
