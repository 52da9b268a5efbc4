"""Exported models: of any model, and of the released ones, which are kept in the user's cache."""

import hashlib
from pathlib import Path

from .onnx_model import DESCRIPTION
from .paths import RELEASED


def export_model(name: str | Path, folder: Path, int8: bool = False) -> None:
    """Writes an exported model, see `onnx_export.export`.

    Args:
        name: of a model folder, or of a repository on the Hub.
        folder: absent, or an exported model, which is replaced.
        int8: see there.

    Raises:
        ImportError: onnxscript, which writes the graphs, is missing.
        OSError: there is no such model, or something else is at the folder.
    """
    import torch

    from modeling_musicvae import MusicVAEModel
    from processing import MusicVAEProcessor

    try:
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ImportError(
            'onnxscript: found none, expected it for export: pip install "musicvae[export]"'
        ) from error
    from .onnx_export import export

    model = MusicVAEModel.from_pretrained(name, dtype=torch.float32)
    export(model, MusicVAEProcessor.from_pretrained(name), Path(name).name, folder, int8)


def exported_releases(cache: Path) -> list[Path]:
    """The folders of all released models, exported into the cache where they are not there yet."""
    folders = []
    for release in sorted(path.parent for path in RELEASED.glob("*/model.safetensors")):
        digest = hashlib.sha256((release / "model.safetensors").read_bytes()).hexdigest()[:16]
        folder = cache / "exported" / f"{release.name}-{digest}"
        if not (folder / DESCRIPTION).is_file():
            print(f"Exporting  {release.name} into {folder}", flush=True)
            export_model(release, folder)
        folders.append(folder)
    return folders
