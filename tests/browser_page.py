"""The page in a headless Chromium: fixtures, and what tests do with the page."""

import json
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest

from musicvae.web_server import RuntimeDownloadError, page_folders, page_server, runtime_folder

CHROMIUM = shutil.which("chromium")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-sync",
    "--disable-background-networking",
    "--disable-component-update",
    "--autoplay-policy=no-user-gesture-required",
]
STEPS = 64


@pytest.fixture(scope="session")
def runtime(tmp_path_factory) -> Path:
    try:
        return runtime_folder(tmp_path_factory.mktemp("cache"))
    except RuntimeDownloadError as error:
        pytest.skip(f"needs onnxruntime-web: {error}")


@pytest.fixture(scope="session")
def exports(tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("exports")
    pytest.importorskip("onnxruntime", reason="needs onnxruntime")
    tiny_onnx = pytest.importorskip("tiny_onnx", reason="needs onnx")
    exports = {
        "groove": tiny_onnx.write_tiny_export(
            root / "groove", "groove", ("funk", "jazz"), latent_kernels=5
        )
    }
    for task in ("humanize", "tap", "add"):
        exports[task] = tiny_onnx.write_tiny_export(root / task, task)
    return exports


@pytest.fixture(scope="session")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    if CHROMIUM is None:
        pytest.skip("needs chromium")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def folders(exports, runtime) -> dict[str, Path]:
    """Those that are served; a test may put others in their place."""
    return page_folders(list(exports.values()), runtime)


@pytest.fixture(scope="session")
def site(folders):
    with page_server(folders) as server:
        threading.Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.fixture(scope="session")
def context(browser):
    context = browser.new_context()
    context.set_default_timeout(120_000)
    yield context
    context.close()


@pytest.fixture
def open_page(context, site):
    """Opens a page and waits until it is ready, or has said why it is not."""
    pages, errors = [], []

    def open_page(address: str = ""):
        pages.append(context.new_page())
        pages[-1].on("pageerror", lambda error: errors.append(error))
        pages[-1].goto(site + address)
        call(pages[-1], "await musicvae.ready")
        return pages[-1]

    yield open_page
    for page in pages:
        page.close()
    assert not errors


@pytest.fixture(scope="session")
def shared_page(context, site):
    page = context.new_page()
    page.goto(site)
    call(page, "await musicvae.ready")
    yield page
    page.close()


@pytest.fixture
def go(shared_page):
    """Takes a page that is open already to another address."""
    errors = []

    def note(error):
        errors.append(error)

    def go(address: str = "#seed=1"):
        shared_page.bring_to_front()  # a page behind another one is not laid out
        call(shared_page, "history.replaceState(null, '', argument)", address)
        call(shared_page, "await page.readAddress()")
        return shared_page

    shared_page.on("pageerror", note)
    yield go
    call(shared_page, "if (page.plays) await page.togglePlay()")
    shared_page.remove_listener("pageerror", note)
    assert not errors


def call(page, script: str, argument=None):
    """Runs statements in the page, which see its module as `musicvae`."""
    body = f"const musicvae = await import('./musicvae.js'); const page = musicvae.page; {script}"
    return page.evaluate(f"async (argument) => {{ {body} }}", argument)


def status(page) -> str:
    return page.inner_text("#status")


def wait_for_status(page, text: str) -> None:
    page.wait_for_selector(f"#status:has-text({json.dumps(text)})")


def shown_drums(page) -> tuple[np.ndarray, np.ndarray]:
    script = "return [[...page.drums.pianoRoll], [...page.drums.timing]]"
    return as_arrays(call(page, script))


def as_arrays(drums: list) -> tuple[np.ndarray, np.ndarray]:
    roll, timing = drums
    shape = (9, STEPS)
    return np.array(roll, np.uint8).reshape(shape), np.array(timing, np.float32).reshape(shape)


def assert_same_drums(found, expected):
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_allclose(found[1], expected[1], atol=1e-6)


def show(page, roll, timing):
    script = """
      const [roll, timing] = argument;
      page.setDrums({ pianoRoll: Uint8Array.from(roll), timing: Float32Array.from(timing) }, "");
    """
    call(page, script, [roll.ravel().tolist(), timing.ravel().tolist()])


def downloaded(page, button, folder) -> Path:
    with page.expect_download() as download:
        page.click(button)
    path = folder / download.value.suggested_filename
    download.value.save_as(path)
    return path
