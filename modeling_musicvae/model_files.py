"""Checks of a saved model's files, before memory is taken for what they ask for."""

import json
import os
import re
from typing import Any

from safetensors import SafetensorError, safe_open
from transformers.utils import cached_file

CONFIG, WEIGHTS = "config.json", "model.safetensors"
PART = re.compile(r"[\w.-]{1,100}\.safetensors")
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
    paths = weight_files(place, variant, **where)
    shapes = {}
    try:
        for path in paths or []:
            with open(path, "rb") as file:
                header_bytes = int.from_bytes(file.read(8), "little")
            if header_bytes > MAX_HEADER_BYTES:
                raise SafetensorError(f"header too large: {header_bytes} bytes")
            with safe_open(path, "pt") as tensors:
                names = tensors.keys()
                shapes |= {name: tuple(tensors.get_slice(name).get_shape()) for name in names}
    except SafetensorError as error:
        raise PretrainedModelError(
            f"{place}: found damaged weights ({error!s:.200}), expected a whole safetensors file"
        ) from error
    return None if paths is None else shapes


def weight_files(
    place: str | os.PathLike, variant: str | None = None, **where: Any
) -> list[str] | None:
    """The paths of the saved weights: of one file, or of the parts that an index names.

    Returns:
        None where there is neither.

    Raises:
        PretrainedModelError: the index is damaged, or names what is not next to it.
        OSError: a part is missing.
    """
    suffix = f".{variant}" if variant else ""
    name, index_name = f"model{suffix}.safetensors", f"{WEIGHTS}.index{suffix}.json"
    optional = {"_raise_exceptions_for_missing_entries": False}
    path = cached_file(place, name, **where, **optional)
    if path is not None:
        return [path]
    index = cached_file(place, index_name, **where, **optional)
    if index is None:
        return None
    try:
        with open(index, "rb") as file:
            content = json.loads(file.read(MAX_CONFIG_BYTES).decode())
        parts = sorted(set(content["weight_map"].values()))
        if not isinstance(content["metadata"], dict):
            raise TypeError("no metadata")
        if not all(PART.fullmatch(part) for part in parts):
            raise ValueError("a part of another name")
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise PretrainedModelError(
            f"{place}: found a damaged {index_name} ({error!s:.200}), expected the index of weights"
        ) from error
    return [cached_file(place, part, **where) for part in parts]
