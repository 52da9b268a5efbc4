"""Models in the page: the same drums as in Python, and what is said of missing and damaged ones."""

import json
import shutil
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from browser_page import as_arrays, assert_same_drums, call, shown_drums, status, wait_for_status

import musicvae
from modeling_musicvae.latent_space import spherical_interpolation
from musicvae.cli import main
from musicvae.onnx_model import OnnxModel
from musicvae.onnx_model import task_of as exported_task_of
from musicvae.paths import RELEASED
from musicvae.random_numbers import KERNEL_STREAM, NOISE_STREAM, normals, uniforms
from musicvae.tasks import SAMPLE_TEMPERATURE, TASKS
from musicvae.web_server import write_space

tiny_onnx = pytest.importorskip("tiny_onnx", reason="needs onnx")

pytest_plugins = ["browser_page"]
pytestmark = pytest.mark.slow


@pytest.mark.parametrize("seed_and_stream", [(0, 0), (1, 2), (2**32 - 1, 5)])
def test_random_numbers_are_those_of_python(go, seed_and_stream):
    page = go()
    found = call(page, "return [...musicvae.uniforms(...argument, 100)]", seed_and_stream)
    assert found == uniforms(*seed_and_stream, 100).tolist()
    found = call(page, "return [...musicvae.normals(...argument, 101)]", seed_and_stream)
    assert found == pytest.approx(normals(*seed_and_stream, 101), abs=1e-12)


@pytest.mark.parametrize(
    ("address", "settings"),
    [
        ("#seed=0", {"seed": 0}),
        ("#seed=4294967295&temperature=0.5", {"seed": 2**32 - 1, "temperature": 0.5}),
        ("#seed=7&temperature=0", {"seed": 7, "temperature": 0}),
        ("#seed=7&style=jazz", {"seed": 7, "style": "jazz"}),
        ("#seed=7&density=1.5&swing=-2", {"seed": 7, "attributes": {"density": 1.5, "swing": -2}}),
    ],
)
def test_an_address_is_the_same_drums_as_in_python(go, exports, address, settings):
    page = go(address)
    drums = OnnxModel(exports["groove"]).sample(1, **{"temperature": SAMPLE_TEMPERATURE} | settings)
    assert drums.piano_roll.any()
    assert_same_drums(shown_drums(page), (drums.piano_roll[0], drums.timing[0]))


def given_drums(exports) -> list[tuple[np.ndarray, np.ndarray]]:
    """Drums to transform: uint8 and float32 (1, 9, steps)."""
    drums = OnnxModel(exports["groove"]).sample(8)
    return [(drums.piano_roll[i : i + 1], drums.timing[i : i + 1]) for i in range(8)]


def transformed_in_python(model: OnnxModel, drums, seed: int, temperature: float = 0.8):
    match model.description["task"]:
        case "humanize":
            made = model.humanize(drums[0], temperature, seed)
        case "tap":
            made = model.tap_to_drums(*drums, temperature, seed)
        case _:
            made = model.add_drums(*drums, temperature, seed)
    return made.piano_roll[0], made.timing[0]


def loaded(page, task: str):
    """A model in the page, anew from the folder that is served."""
    load = "task => import('./musicvae.js').then((page) => page.Model.load(`models/${task}`))"
    return page.evaluate_handle(load, task)


def transformed_in_page(page, model, drums, seed: int, temperature: float = 0.8):
    script = """
      const [model, roll, timing, seed, temperature] = argument;
      const drums = { pianoRoll: Uint8Array.from(roll), timing: Float32Array.from(timing) };
      const made = await model.transform(drums, { seed, temperature });
      return [[...made.pianoRoll], [...made.timing]];
    """
    numbers = (each.ravel().tolist() for each in drums)
    return as_arrays(call(page, script, [model, *numbers, seed, temperature]))


def sampled_in_page(page, model, seed: int, style: str = ""):
    script = """
      const [model, seed, style] = argument;
      const latents = await model.drawLatents(seed, style);
      const made = await model.decode(latents, { seed, temperature: 0.8 });
      return [[...made.pianoRoll], [...made.timing]];
    """
    return as_arrays(call(page, script, [model, seed, style]))


@pytest.mark.parametrize("temperature", [0.0, 0.8])
@pytest.mark.parametrize("task", ["humanize", "tap", "add"])
def test_drums_are_transformed_as_in_python(go, exports, task, temperature):
    page, model = go(), OnnxModel(exports[task])
    page_model = loaded(page, task)
    for seed, drums in enumerate(given_drums(exports)[:3]):
        made = transformed_in_page(page, page_model, drums, seed, temperature)
        assert_same_drums(made, transformed_in_python(model, drums, seed, temperature))


@pytest.mark.parametrize(
    ("settings", "followed"),
    [
        ({"input_transform": "tap"}, (True, True)),
        ({"input_transform": "tap_fixed_velocity"}, (False, True)),
        ({"velocity_bins": 0, "timing_bins": 0}, (False, False)),
        ({"output": "nade"}, (False, False)),
        ({"output": "groove", "velocity_bins": 0, "timing_bins": 0}, (True, True)),
    ],
    ids=["taps", "taps of one velocity", "hits alone", "nade", "groove"],
)
def test_drums_follow_the_feel_of_their_taps_as_in_python(
    go, exports, folders, monkeypatch, tmp_path, settings, followed
):
    folder = tiny_onnx.write_tiny_export(tmp_path / "tap", "tap", **settings)
    monkeypatch.setitem(folders, "models/tap", folder)
    page, drums = go(), given_drums(exports)[0]
    roll, timing = transformed_in_page(page, loaded(page, "tap"), drums, seed=1)
    assert_same_drums((roll, timing), transformed_in_python(OnnxModel(folder), drums, seed=1))
    steps = np.flatnonzero(roll.any(0) & drums[0][0].any(0))
    taps = drums[0][0][:, steps]
    tap_timing = drums[1][0][taps.argmax(0), steps]
    same_velocity = roll[:, steps].max(0) == taps.max(0)
    same_timing = (timing[:, steps] == tap_timing).any(0)
    assert len(steps) > 20
    assert (same_velocity.all(), same_timing.all()) == followed


@pytest.fixture(scope="module")
def released():
    """The folder of the released model of a task."""
    names = {exported_task_of(transform): each.released for transform, each in TASKS.items()}
    return lambda task: RELEASED / names[task]


@pytest.mark.parametrize("task", ["groove", "humanize", "tap", "add"])
def test_released_models_make_the_same_drums_as_in_python(
    go, exports, released, folders, monkeypatch, task
):
    """The two onnxruntimes may round a draw on the border of two classes to either side."""
    monkeypatch.setitem(folders, f"models/{task}", released(task))
    page, model = go(), OnnxModel(released(task))
    page_model, equal = loaded(page, task), []
    for seed, drums in enumerate(given_drums(exports)):
        if task == "groove":
            found = sampled_in_page(page, page_model, seed)
            made = model.sample(1, 0.8, seed)
            expected = made.piano_roll[0], made.timing[0]
        else:
            found = transformed_in_page(page, page_model, drums, seed)
            expected = transformed_in_python(model, drums, seed)
        equal.append(is_same(found, expected))
    assert sum(equal) >= 7


def test_a_seed_means_the_same_drums_by_torch_by_onnx_and_in_the_page(
    go, released, folders, monkeypatch, tmp_path
):
    """But for rounding ties, see above."""
    monkeypatch.setitem(folders, "models/groove", released("groove"))
    models = {"torch": RELEASED / TASKS["none"].released, "onnx": released("groove")}
    for backend, model in models.items():
        words = f"--seed=3 --style=jazz --backend={backend} --output_dir={tmp_path / backend}"
        main(["sample", f"--model={model}", *words.split()])
    grooves = musicvae.load(models["torch"]).sample(4, None, 0.8, seed=3, style="jazz")
    page = go()
    page_model, equal_files, equal_drums = loaded(page, "groove"), [], []
    for index, groove in enumerate(grooves):
        torch_file, onnx_file = (
            tmp_path / backend / f"groove-{index + 1}.mid" for backend in models
        )
        equal_files.append(torch_file.read_bytes() == onnx_file.read_bytes())
        drums = sampled_in_page(page, page_model, 3 + index, "jazz")
        equal_drums.append(is_same(drums, (groove.piano_roll, groove.timing)))
    assert sum(equal_files) >= 3 and sum(equal_drums) >= 3


def test_styles_of_the_released_model_are_offered(open_page, released, folders, monkeypatch):
    monkeypatch.setitem(folders, "models/groove", released("groove"))
    page, model = open_page("#seed=5"), OnnxModel(released("groove"))
    styles = page.locator("#style option").all_inner_texts()
    assert styles == ["Any", *model.description["styles"]] and "jazz" in styles
    page.select_option("#style", "jazz")
    page.wait_for_function("location.hash.includes('style=jazz')")
    drums = model.sample(1, model.description["temperature"], 5, style="jazz")
    assert is_same(shown_drums(page), (drums.piano_roll[0], drums.timing[0]))


def is_same(found, expected) -> bool:
    return (found[0] == expected[0]).all() and np.allclose(found[1], expected[1], atol=1e-6)


@pytest.mark.parametrize("fraction", [0, 0.25, 0.5, 1])
def test_interpolation_is_that_of_python(go, fraction):
    start, end = torch.randn(2, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    script = "return [...musicvae.interpolate(...argument)]"
    found = call(go(), script, [start.tolist(), end.tolist(), fraction])
    expected = spherical_interpolation(start, end, 5)[round(4 * fraction)]
    assert found == pytest.approx(expected.tolist())


def test_the_first_corner_of_the_pad_is_its_groove(go):
    page = go("#seed=3")
    alone = shown_drums(page)
    call(page, "await page.newCorners(); await page.movePad(1, 1)")
    assert (shown_drums(page)[0] != alone[0]).any()
    page.focus("#pad")
    for key in ["ArrowLeft", "ArrowUp"] * 10:
        page.keyboard.press(key)
    page.wait_for_function("document.querySelector('#pad').ariaValueText == '0 % right, 0 % down'")
    call(page, "await page.regenerate()")
    assert_same_drums(shown_drums(page), alone)


def test_a_place_between_four_grooves_is_that_of_python(go, exports):
    """A pointer drags the groove there."""
    page, model = go("#pad=1~2~3~4~0~0"), OnnxModel(exports["groove"])
    box = page.locator("#pad").bounding_box()
    across, down = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(across - 30, down - 30)
    page.mouse.down()
    page.mouse.move(across, down, steps=3)
    page.mouse.up()
    page.wait_for_function("document.querySelector('#pad').ariaValueText.startsWith('50')")
    call(page, "await page.regenerate()")
    x, y = call(page, "return [page.dot.x, page.dot.y]")
    assert (x, y) == pytest.approx((0.5, 0.5), abs=0.02)
    ends = [latents_of(model, seed) for seed in (1, 2, 3, 4)]
    rows = [point_between(*pair, x) for pair in (ends[:2], ends[2:])]
    drums = model.decode(point_between(*rows, y)[None].astype(np.float32), SAMPLE_TEMPERATURE, 1)
    assert_same_drums(shown_drums(page), (drums.piano_roll[0], drums.timing[0]))


def latents_of(model: OnnxModel, seed: int) -> np.ndarray:
    choices = uniforms(seed, KERNEL_STREAM, 1)
    return model.latents_from_noise(normals(seed, NOISE_STREAM, 8)[None], choices)[0]


def point_between(start: np.ndarray, end: np.ndarray, fraction: float) -> np.ndarray:
    """On the great arc, whose lengths change evenly."""
    lengths = np.linalg.norm(start), np.linalg.norm(end)
    start, end = start / lengths[0], end / lengths[1]
    angle = np.arccos(start @ end)
    direction = np.sin((1 - fraction) * angle) * start + np.sin(fraction * angle) * end
    return direction / np.sin(angle) * ((1 - fraction) * lengths[0] + fraction * lengths[1])


def test_a_pinned_groove_becomes_the_nearest_corner(go):
    page = go("#pad=1~2~3~4~0.9~0.1")
    call(page, "await page.newGroove(7)")
    page.click("#pin")
    wait_for_status(page, "Pinned to the upper right corner")
    call(page, "await page.movePad(1, 0)")
    assert call(page, "return location.hash").startswith("#pad=1%7E7%7E3%7E4%7E1.000%7E0.000")


# -- Missing and damaged models


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda folder: (folder / "decoder.onnx").unlink(), "decoder.onnx: found status 404"),
        (lambda folder: flip(folder / "decoder.onnx"), "decoder.onnx: found damaged data"),
        (lambda folder: cut(folder / "model.safetensors"), "model.safetensors: found "),
        (lambda folder: cut(folder / "musicvae.json"), "found text that is no JSON"),
        (lambda folder: edit(folder, format=2), "found format 2, expected 3"),
    ],
    ids=["missing", "damaged", "cut", "description", "format"],
)
def test_a_damaged_model_is_reported_in_words(open_page, own_model, damage, said):
    damage(own_model("groove"))
    page = open_page()
    assert said in status(page)
    assert page.locator("#status.error").count() == 1


def test_a_lost_connection_is_reported_in_words_and_may_be_tried_again(open_page, context):
    def lose(route):
        route.abort()

    context.route("**/models/groove/decoder.onnx", lose)
    page = open_page("#seed=4")
    assert "decoder.onnx: found no connection" in status(page)
    context.unroute("**/models/groove/decoder.onnx", lose)
    page.reload()
    wait_for_status(page, "Groove 4:")


def test_a_missing_runtime_is_reported_in_words(open_page, folders, monkeypatch, tmp_path):
    monkeypatch.setitem(folders, "onnxruntime", tmp_path)
    assert "found no onnxruntime-web" in status(open_page())


def test_a_damaged_model_of_another_task_leaves_the_groove_playing(open_page, own_model):
    flip(own_model("humanize") / "decoder.onnx")
    page = open_page("#seed=4")
    before = shown_drums(page)
    page.click("#humanize")
    page.wait_for_selector("#status.error")
    assert "models/humanize/decoder.onnx: found damaged data" in status(page)
    assert_same_drums(shown_drums(page), before)


def test_buttons_of_missing_models_are_not_offered(open_page, folders, monkeypatch):
    for task in ("humanize", "tap", "add"):
        monkeypatch.delitem(folders, f"models/{task}")
    page = open_page()
    assert not page.is_visible("#humanize") and not page.is_visible("#add")
    assert page.is_disabled("#record")


@pytest.fixture
def own_model(exports, folders, monkeypatch, tmp_path):
    """Puts a copy in the place of a model, which a test may damage."""

    def own_model(task: str) -> Path:
        monkeypatch.setitem(folders, f"models/{task}", tmp_path / task)
        return shutil.copytree(exports[task], tmp_path / task)

    return own_model


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def edit(folder: Path, **fields) -> None:
    path = folder / "musicvae.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def test_names_in_a_description_are_text_and_no_markup(open_page, own_model):
    name = "<b>bold</b>"
    edit(own_model("groove"), drums=[name] * 9, attributes=[name, "swing"], styles=[name, "jazz"])
    page = open_page()
    assert page.locator("b").count() == 0
    assert page.locator(f"label:has-text({json.dumps(name)})").count() >= 1


def test_a_space_plays_on_any_static_host(context, exports, runtime, tmp_path):
    write_space(tmp_path / "space", list(exports.values()), runtime)
    handler = partial(SimpleHTTPRequestHandler, directory=tmp_path / "space")
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
        page = context.new_page()
        page.goto(f"http://127.0.0.1:{server.server_port}/#seed=1")
        wait_for_status(page, "Groove 1:")
        page.click("#humanize")
        wait_for_status(page, "Humanized")
        page.close()
        server.shutdown()
