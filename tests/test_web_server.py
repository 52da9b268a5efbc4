import base64
import hashlib
import http.client
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import threading
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from musicvae import web_server
from musicvae.web_server import (
    RUNTIME_FILES,
    RuntimeDownloadError,
    page_folders,
    page_server,
    runtime_folder,
    write_space,
)


@pytest.fixture
def runtime(tmp_path) -> Path:
    folder = tmp_path / "runtime"
    folder.mkdir()
    for name in RUNTIME_FILES:
        (folder / name).write_text(name)
    return folder


@pytest.fixture
def write_model(tmp_path):
    def write(task: str, name: str = "") -> Path:
        folder = tmp_path / (name or f"my-{task}")
        folder.mkdir()
        description = {"format": 3, "task": task, "files": {"decoder.onnx": {}}}
        (folder / "musicvae.json").write_text(json.dumps(description))
        (folder / "decoder.onnx").write_bytes(b"graph")
        (folder / "README.md").write_text("a card, which the page does not need")
        return folder

    return write


@pytest.fixture
def get(runtime, write_model):
    """GETs a path of the served page, as it is, without what a client would tidy up."""
    models = [write_model("groove"), write_model("tap")]
    server = page_server(page_folders(models, runtime))
    threading.Thread(target=server.serve_forever, args=[0.01], daemon=True).start()

    def get(path: str) -> http.client.HTTPResponse:
        connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
        connection.request("GET", path)
        return connection.getresponse()

    yield get
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("path", "mime_type"),
    [
        ("/", "text/html; charset=utf-8"),
        ("/index.html?from=here", "text/html; charset=utf-8"),
        ("/musicvae.js", "text/javascript"),
        ("/musicvae.css", "text/css"),
        ("/onnxruntime/ort.wasm.min.mjs", "text/javascript"),
        ("/onnxruntime/ort-wasm-simd-threaded.wasm", "application/wasm"),
        ("/models/models.json", "application/json"),
        ("/models/groove/musicvae.json", "application/json"),
        ("/models/tap/decoder.onnx", "application/octet-stream"),
    ],
)
def test_files_are_served_with_their_types(get, path, mime_type):
    response = get(path)
    assert response.status == 200
    assert response.headers["Content-Type"] == mime_type
    assert response.read()


def test_models_and_page_are_never_taken_from_a_browsers_cache(get):
    for path in ("/", "/models/models.json", "/models/groove/decoder.onnx"):
        assert get(path).headers["Cache-Control"] == "no-store"


def test_the_page_learns_which_models_there_are(get):
    assert json.loads(get("/models/models.json").read()) == ["groove", "tap"]


@pytest.mark.parametrize(
    "path",
    [
        "/../web_server.py",
        "/%2e%2e/web_server.py",
        "/onnxruntime/../../runtime/secret",
        "/models/groove/..%2fsecret",
        "/models/groove/..%5csecret",
        "/models/groove/%00",
        "//etc/passwd",
        "/etc/passwd",
    ],
)
def test_nothing_else_is_served(get, path, tmp_path):
    (tmp_path / "secret").write_text("secret")
    assert get(path).status == 404


@pytest.mark.parametrize("path", ["/models/", "/models/groove/", "/onnxruntime/", "/models/add/x"])
def test_folders_are_not_listed(get, path):
    assert get(path).status == 404


def test_the_server_is_for_this_machine_alone(runtime, write_model):
    with page_server(page_folders([write_model("groove")], runtime)) as server:
        assert server.server_address[0] == "127.0.0.1"


def test_the_command_serves_the_released_models_until_ctrl_c(runtime, tmp_path):
    name = web_server.RUNTIME_URL.rpartition("/")[2].removesuffix(".tgz")
    (tmp_path / "musicvae").mkdir()
    runtime.rename(tmp_path / "musicvae" / name)
    with subprocess.Popen(
        [sys.executable, "-m", "musicvae", "web", "--port=0"],
        env=os.environ | {"XDG_CACHE_HOME": str(tmp_path)},
        stdout=subprocess.PIPE,
        text=True,
        # A shell's background jobs, and what they start, ignore Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as process:
        try:
            address = urlsplit(process.stdout.readline().split()[1])
            connection = http.client.HTTPConnection(address.netloc, timeout=10)
            connection.request("GET", "/models/models.json")
            tasks = json.loads(connection.getresponse().read())
        finally:
            process.send_signal(signal.SIGINT)
    assert set(tasks) == {"groove", "humanize", "tap", "add"}
    assert process.returncode == 130


def test_a_folder_without_an_exported_model_is_refused(runtime, tmp_path):
    with pytest.raises(ValueError, match="expected a folder that `musicvae export` wrote"):
        page_folders([tmp_path], runtime)


def test_two_models_of_one_task_are_refused(runtime, write_model):
    models = [write_model("groove"), write_model("groove", "other")]
    with pytest.raises(ValueError, match="expected one a task"):
        page_folders(models, runtime)


def test_a_page_without_a_model_for_new_grooves_is_refused(runtime, write_model):
    with pytest.raises(ValueError, match="found none that generates new grooves"):
        page_folders([write_model("tap")], runtime)


def test_a_space_is_the_whole_page_in_one_folder(runtime, write_model, tmp_path):
    space = tmp_path / "space"
    write_space(space, [write_model("groove"), write_model("tap")], runtime)
    files = {str(path.relative_to(space)) for path in space.rglob("*") if path.is_file()}
    assert files == {
        "README.md",
        "index.html",
        "musicvae.css",
        "musicvae.js",
        "models/models.json",
        *(f"onnxruntime/{name}" for name in RUNTIME_FILES),
        *(f"models/{task}/musicvae.json" for task in ("groove", "tap")),
        *(f"models/{task}/decoder.onnx" for task in ("groove", "tap")),
    }
    assert json.loads((space / "models/models.json").read_text()) == ["groove", "tap"]
    assert "\nsdk: static\n" in (space / "README.md").read_text()


def test_a_space_does_not_replace_what_is_there(runtime, write_model, tmp_path):
    with pytest.raises(FileExistsError, match="expected a new folder"):
        write_space(tmp_path, [write_model("groove")], runtime)


@pytest.fixture
def npm_package(tmp_path, monkeypatch) -> Path:
    """Stands for the package of onnxruntime-web."""
    package = tmp_path / "onnxruntime-web-0.0.0.tgz"
    with tarfile.open(package, "w:gz") as archive:
        for name in [*RUNTIME_FILES, "ort.all.mjs"]:
            info = tarfile.TarInfo(f"package/dist/{name}")
            info.size = len(name)
            archive.addfile(info, io.BytesIO(name.encode()))
    digest = base64.b64encode(hashlib.sha512(package.read_bytes()).digest()).decode()
    monkeypatch.setattr(web_server, "RUNTIME_URL", package.as_uri())
    monkeypatch.setattr(web_server, "RUNTIME_SHA512", digest)
    return package


def test_the_runtime_is_fetched_once(npm_package, tmp_path):
    folder = runtime_folder(tmp_path / "cache")
    assert {path.name: path.read_text() for path in folder.iterdir()} == {
        name: name for name in RUNTIME_FILES
    }
    npm_package.unlink()
    assert runtime_folder(tmp_path / "cache") == folder


def test_another_package_is_refused(npm_package, tmp_path):
    npm_package.write_bytes(npm_package.read_bytes() + b"\0")
    with pytest.raises(RuntimeDownloadError, match="found sha512 .*, expected"):
        runtime_folder(tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_without_a_connection_the_error_says_what_is_fetched(npm_package, tmp_path):
    npm_package.unlink()
    with pytest.raises(RuntimeDownloadError, match="onnxruntime-web, which is fetched once"):
        runtime_folder(tmp_path / "cache")


def test_a_port_that_is_taken_is_refused():
    with web_server.page_server({}) as server:
        port = server.server_port
        with pytest.raises(OSError, match=f"port: found {port}, expected a free one, as 0 takes: "):
            web_server.page_server({}, port)
