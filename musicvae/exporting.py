"""Exported models: the released ones, and others, which are kept in the user's cache."""

import hashlib
import os
import sys
from pathlib import Path

from .onnx_model import DESCRIPTION, FORMAT, WEIGHTS
from .paths import RELEASED


def export_model(name: str | Path, folder: Path, int8: bool = False) -> None:
    """Writes an exported model, see `onnx_export.export`.

    Args:
        name: of a model folder, or of a repository on the Hub.
        folder: absent, or an exported model, which is replaced.
        int8: see there.

    Raises:
        ModuleNotFoundError: a package of the extra `export` is missing.
        OSError: there is no such model, or something else is at the folder.
    """
    import torch
    from transformers.utils.logging import disable_progress_bar

    from modeling_musicvae import MusicVAEModel
    from processing import MusicVAEProcessor

    from .onnx_export import export

    disable_progress_bar()
    model = MusicVAEModel.from_pretrained(name, dtype=torch.float32)
    export(model, MusicVAEProcessor.from_pretrained(name), Path(name).name, folder, int8)


def exported_releases() -> list[Path]:
    """The folders of all released models, each of them an exported model too."""
    return sorted(path.parent for path in RELEASED.glob(f"*/{DESCRIPTION}"))


def exported_folder(model: str | os.PathLike, cache: Path) -> Path:
    """The folder of an exported model: the model's own, if it is one, or else in the cache."""
    if (Path(model) / DESCRIPTION).is_file():
        return Path(model)
    weights = Path(model) / WEIGHTS
    if not weights.is_file():
        raise FileNotFoundError(
            f"model: found no {weights}, expected an exported model or the folder of a trained one"
        )
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()[:16]
    folder = cache / f"exported-{FORMAT}" / f"{Path(model).name}-{digest}"
    if not (folder / DESCRIPTION).is_file():
        print(f"Exporting  {Path(model).name} into {folder}", file=sys.stderr, flush=True)
        export_model(Path(model), folder)
    return folder
