"""The page in the browser: served on this machine, or written as a folder for a static host.

The page and the models that it runs are files; onnxruntime-web, which runs them, is not part of
this package: its 14 MB of WebAssembly would be half of the wheel, for those who never open the
page. Its files are fetched once from its npm package, of one version whose hash stands here, and
kept in the user's cache.
"""

import base64
import hashlib
import io
import json
import os
import posixpath
import shutil
import tarfile
import urllib.error
import urllib.request
from collections.abc import Sequence
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from .atomic import whole_folder
from .onnx_model import DESCRIPTION

PAGE = Path(__file__).parent / "web"
RUNTIME_URL = "https://registry.npmjs.org/onnxruntime-web/-/onnxruntime-web-1.30.0.tgz"
RUNTIME_SHA512 = (
    "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
)
RUNTIME_FILES = (
    "ort.wasm.min.mjs",
    "ort-wasm-simd-threaded.mjs",
    "ort-wasm-simd-threaded.wasm",
)
MIME_TYPES = {
    ".css": "text/css",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript",
    ".json": "application/json",
    ".mjs": "text/javascript",
    ".wasm": "application/wasm",
}
SPACE_CARD = """\
---
title: MusicVAE
emoji: 🥁
colorFrom: red
colorTo: yellow
sdk: static
app_file: index.html
license: apache-2.0
---

Drum grooves with the touch of a drummer, made in the browser by MusicVAE.
"""


class RuntimeDownloadError(OSError):
    """onnxruntime-web cannot be fetched, or is not the file that is expected."""


def runtime_folder(cache: Path) -> Path:
    """The files of onnxruntime-web, which are fetched into a cache if they are not there yet.

    Raises:
        RuntimeDownloadError: there is no connection, or the package is not the one that is
            expected; nothing is left in the cache then.
    """
    folder = cache / RUNTIME_URL.rpartition("/")[2].removesuffix(".tgz")
    if folder.is_dir():
        return folder
    package = _fetch(RUNTIME_URL, RUNTIME_SHA512)
    with (
        whole_folder(folder) as temporary,
        tarfile.open(fileobj=io.BytesIO(package)) as archive,
    ):
        for name in RUNTIME_FILES:
            file = archive.extractfile(f"package/dist/{name}")
            assert file is not None  # the package's digest was checked
            (temporary / name).write_bytes(file.read())
    return folder


def _fetch(url: str, sha512: str) -> bytes:
    try:
        with urllib.request.urlopen(url, timeout=60) as response:
            package = response.read()
    except (urllib.error.URLError, TimeoutError) as error:
        raise RuntimeDownloadError(
            f"{url}: found no connection ({error}), expected onnxruntime-web, which is fetched "
            "once, 33 MB"
        ) from error
    found = base64.b64encode(hashlib.sha512(package).digest()).decode()
    if found != sha512:
        raise RuntimeDownloadError(f"{url}: found sha512 {found}, expected {sha512}")
    return package


def page_folders(models: Sequence[Path], runtime: Path) -> dict[str, Path]:
    """The folders of a whole page by their place in its address.

    Args:
        models: folders that `musicvae export` wrote, one a task, one of them a "groove".
        runtime: the folder of onnxruntime-web.

    Raises:
        ValueError: a folder is no exported model, two have the same task, or none is a "groove".
    """
    folders = {"": PAGE, "onnxruntime": runtime}
    for folder in models:
        place = f"models/{_description(folder)['task']}"
        if place in folders:
            raise ValueError(f"models: found {folders[place]} and {folder}, expected one a task")
        folders[place] = folder
    if "models/groove" not in folders:
        raise ValueError("models: found none that generates new grooves, expected one")
    return folders


def _description(folder: Path) -> dict[str, Any]:
    try:
        found = json.loads((folder / DESCRIPTION).read_text())
        return {name: found[name] for name in ("task", "files")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{folder}: found no model for the page ({error}), expected a folder that "
            "`musicvae export` wrote"
        ) from error


def model_list(folders: dict[str, Path]) -> str:
    """models/models.json: the tasks that the page has models for."""
    places = (place.partition("models/") for place in folders)
    return json.dumps([task for _, models, task in places if models])


def write_space(target: Path, models: Sequence[Path], runtime: Path) -> None:
    """Writes the page with its models as a folder for a static host, such as a Space.

    Raises:
        FileExistsError: `target` exists.
        ValueError: see `page_folders`.
    """
    folders = page_folders(models, runtime)
    if target.exists():
        raise FileExistsError(f"{target}: found an existing path, expected a new folder")
    with whole_folder(target) as temporary:
        for place, folder in folders.items():
            if not place.startswith("models/"):
                shutil.copytree(folder, temporary / place, dirs_exist_ok=True)
                continue
            (temporary / place).mkdir(parents=True)
            for name in (DESCRIPTION, *_description(folder)["files"]):
                shutil.copy(folder / name, temporary / place)
        (temporary / "models/models.json").write_text(model_list(folders))
        (temporary / "README.md").write_text(SPACE_CARD, encoding="utf-8")


class PageHandler(SimpleHTTPRequestHandler):
    """Serves the files of some folders, and nothing else: no list of a folder, no way out of it."""

    extensions_map = SimpleHTTPRequestHandler.extensions_map | MIME_TYPES

    def __init__(self, *args, folders: dict[str, Path], **kwargs):
        self.folders = folders
        super().__init__(*args, **kwargs)

    def do_GET(self) -> None:
        if urlsplit(self.path).path == "/models/models.json":
            self._send_model_list()
        else:
            super().do_GET()

    def _send_model_list(self) -> None:
        body = model_list(self.folders).encode()
        self.send_response(200)
        self.send_header("Content-Type", MIME_TYPES[".json"])
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def translate_path(self, path: str) -> str:
        """The file that a path of the address stands for, which need not exist."""
        path = posixpath.normpath(unquote(urlsplit(path).path)).lstrip("/")
        place, _, name = path.rpartition("/")
        if not path:
            name = "index.html"
        folder = self.folders.get(place)
        if folder is None or name in ("", "..") or "\\" in name or "\0" in name:
            return os.devnull + "/none"
        return str(folder / name)

    def list_directory(self, path: str | os.PathLike[str]) -> None:
        self.send_error(404, "File not found")

    def end_headers(self) -> None:
        # Another model may have the same address the next time.
        runtime = self.path.startswith("/onnxruntime/")
        self.send_header("Cache-Control", "no-cache" if runtime else "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        super().end_headers()

    def log_message(self, format: str, *args) -> None:
        """Says nothing: the page itself reports what is missing."""


def page_server(folders: dict[str, Path], port: int = 0) -> ThreadingHTTPServer:
    """A server of the page for this machine alone; `serve_forever` runs it.

    Args:
        folders: see `page_folders`.
        port: 0 takes a free one, which is then `server_port`.

    Raises:
        OSError: the port is taken.
    """
    try:
        return ThreadingHTTPServer(("127.0.0.1", port), partial(PageHandler, folders=folders))
    except OSError as error:
        raise OSError(f"port: found {port}, expected a free one, as 0 takes: {error}") from error
