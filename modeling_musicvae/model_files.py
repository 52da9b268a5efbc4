"""Checks of a saved model's files, before memory is taken for what they ask for."""

import os
from typing import Any

from safetensors import SafetensorError, safe_open
from transformers.utils import cached_file

CONFIG, WEIGHTS = "config.json", "model.safetensors"
# A hundred times those of a MusicVAE.
MAX_CONFIG_BYTES, MAX_HEADER_BYTES = 1 << 20, 1 << 20
# The arguments of `from_pretrained` that say where the files are.
PLACE_ARGUMENTS = (
    "cache_dir",
    "force_download",
    "local_files_only",
    "proxies",
    "revision",
    "subfolder",
    "token",
)


class PretrainedModelError(ValueError):
    """A model folder or repository that is not a whole MusicVAE."""


def place_arguments(arguments: dict[str, Any]) -> dict[str, Any]:
    """Those of the arguments that say where the files are."""
    return {name: arguments[name] for name in PLACE_ARGUMENTS if name in arguments}


def check_config_size(place: str | os.PathLike, **where: Any) -> None:
    """Raises `PretrainedModelError` for a config.json that is too long to be a config."""
    path = place if os.path.isfile(place) else cached_file(place, CONFIG, **where)
    if path is not None and os.path.getsize(path) > MAX_CONFIG_BYTES:
        raise PretrainedModelError(
            f"{place}: found a {CONFIG} of {os.path.getsize(path)} bytes, expected at most "
            f"{MAX_CONFIG_BYTES}"
        )


def weight_shapes(
    place: str | os.PathLike, variant: str | None = None, **where: Any
) -> dict[str, tuple[int, ...]] | None:
    """The shapes of the saved tensors, by name, as the header of their file has them.

    Returns:
        None where there is no such file.

    Raises:
        PretrainedModelError: the file is damaged.
    """
    name = f"model.{variant}.safetensors" if variant else WEIGHTS
    path = cached_file(place, name, _raise_exceptions_for_missing_entries=False, **where)
    if path is None:
        return None
    with open(path, "rb") as file:
        header_bytes = int.from_bytes(file.read(8), "little")
    try:
        if header_bytes > MAX_HEADER_BYTES:
            raise SafetensorError(f"header too large: {header_bytes} bytes")
        with safe_open(path, "pt") as tensors:
            names = tensors.keys()
            return {name: tuple(tensors.get_slice(name).get_shape()) for name in names}
    except SafetensorError as error:
        raise PretrainedModelError(
            f"{place}: found damaged weights ({error!s:.200}), expected a whole safetensors file"
        ) from error
