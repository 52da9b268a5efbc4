"""The page in a headless Chromium, next to what Python makes of the same files."""

import base64
import io
import json
import shutil
import threading
import wave
from functools import cache, partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import mido
import numpy as np
import pytest
import torch

from modeling_musicvae.latent_space import spherical_interpolation
from musicvae.exporting import export_model
from musicvae.onnx_model import OnnxModel
from musicvae.onnx_model import task_of as exported_task_of
from musicvae.paths import RELEASED
from musicvae.random_numbers import normals, uniforms
from musicvae.tasks import SAMPLE_TEMPERATURE, TASKS
from musicvae.web_server import (
    RuntimeDownloadError,
    page_folders,
    page_server,
    runtime_folder,
    write_space,
)
from processing import MusicVAEProcessor

pytest.importorskip("onnxruntime", reason="needs onnxruntime")
sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
tiny_onnx = pytest.importorskip("tiny_onnx", reason="needs onnx")

pytestmark = pytest.mark.slow

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
SAMPLE_RATE = 44_100


@pytest.fixture(scope="module")
def runtime(tmp_path_factory) -> Path:
    try:
        return runtime_folder(tmp_path_factory.mktemp("cache"))
    except RuntimeDownloadError as error:
        pytest.skip(f"needs onnxruntime-web: {error}")


@pytest.fixture(scope="module")
def exports(tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("exports")
    exports = {"groove": tiny_onnx.write_tiny_export(root / "groove", "groove", ("funk", "jazz"))}
    for task in ("humanize", "tap", "add"):
        exports[task] = tiny_onnx.write_tiny_export(root / task, task)
    return exports


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("needs chromium")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def folders(exports, runtime) -> dict[str, Path]:
    """Those that are served; a test may put others in their place."""
    return page_folders(list(exports.values()), runtime)


@pytest.fixture(scope="module")
def site(folders):
    with page_server(folders) as server:
        threading.Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.fixture(scope="module")
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


@pytest.fixture(scope="module")
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


# -- The same numbers and the same drums


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


def transformed_in_python(model: OnnxModel, drums, seed: int):
    match model.description["task"]:
        case "humanize":
            made = model.humanize(drums[0], 0.8, seed)
        case "tap":
            made = model.tap_to_drums(*drums, 0.8, seed)
        case _:
            made = model.add_drums(*drums, 0.8, seed)
    return made.piano_roll[0], made.timing[0]


def loaded(page, task: str):
    """A model in the page, anew from the folder that is served."""
    load = "task => import('./musicvae.js').then((page) => page.Model.load(`models/${task}`))"
    return page.evaluate_handle(load, task)


def transformed_in_page(page, model, drums, seed: int):
    script = """
      const [model, roll, timing, seed] = argument;
      const drums = { pianoRoll: Uint8Array.from(roll), timing: Float32Array.from(timing) };
      const made = await model.transform(drums, { seed, temperature: 0.8 });
      return [[...made.pianoRoll], [...made.timing]];
    """
    return as_arrays(call(page, script, [model, *(each.ravel().tolist() for each in drums), seed]))


def sampled_in_page(page, model, seed: int):
    script = """
      const [model, seed] = argument;
      const made = await model.decode(await model.drawLatents(seed), { seed, temperature: 0.8 });
      return [[...made.pianoRoll], [...made.timing]];
    """
    return as_arrays(call(page, script, [model, seed]))


@pytest.mark.parametrize("task", ["humanize", "tap", "add"])
def test_drums_are_transformed_as_in_python(go, exports, task):
    page, model = go(), OnnxModel(exports[task])
    page_model = loaded(page, task)
    for seed, drums in enumerate(given_drums(exports)[:3]):
        made = transformed_in_page(page, page_model, drums, seed)
        assert_same_drums(made, transformed_in_python(model, drums, seed))


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
def released(tmp_path_factory):
    """The released model of a task, exported."""
    pytest.importorskip("onnxscript", reason="needs onnxscript, to export models")
    names = {exported_task_of(transform): each.released for transform, each in TASKS.items()}
    root = tmp_path_factory.mktemp("released")

    @cache
    def export(task: str) -> Path:
        export_model(RELEASED / names[task], root / task)
        return root / task

    return export


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


# -- Links


def test_a_link_reproduces_a_groove_with_its_settings(open_page):
    page = open_page()
    page.click("#new")
    page.wait_for_function("location.hash")
    page.fill("#bpm", "133")
    page.fill("#temperature", "0.7")
    page.fill("#attribute-density", "1.2")
    call(page, "await page.regenerate()")
    link = call(page, "return location.hash")
    assert {"bpm=133", "temperature=0.7", "density=1.2"} < set(link[1:].split("&"))
    other = open_page(link)
    assert_same_drums(shown_drums(other), shown_drums(page))
    assert other.input_value("#bpm") == "133"


def test_a_link_reproduces_a_place_between_four_grooves(open_page):
    page = open_page("#pad=1~2~3~4~0.3~0.6")
    other = open_page(call(page, "return location.hash"))
    assert_same_drums(shown_drums(other), shown_drums(page))


def test_a_link_reproduces_edited_drums(open_page):
    page = open_page("#seed=2")
    page.click(".cell >> nth=3")
    roll, timing = shown_drums(page)
    other_roll, other_timing = shown_drums(open_page(call(page, "return location.hash")))
    np.testing.assert_array_equal(other_roll, roll)
    np.testing.assert_allclose(other_timing, timing, atol=1 / 256)


def test_a_damaged_link_says_so_and_plays_something_else(go):
    page = go("#drums=____")
    assert "found damaged drums" in status(page)
    assert shown_drums(page)[0].any()


def test_going_back_returns_to_the_groove_before(go):
    page = go("#seed=2")
    before = shown_drums(page)
    call(page, "await page.newGroove()")
    page.go_back()
    wait_for_status(page, "Groove 2:")
    assert_same_drums(shown_drums(page), before)


# -- Sound


def test_hits_sound_where_they_are(go):
    """Onsets in the rendered sound, by the rise of its energy, in ms of hits that stand alone."""
    page = go()
    roll, timing = np.zeros((9, STEPS), np.uint8), np.zeros((9, STEPS), np.float32)
    places = [(drum, 7 * drum) for drum in range(9)]
    for index, (drum, step) in enumerate(places):
        roll[drum, step], timing[drum, step] = 100, 0.05 * index - 0.2
    left, right = rendered(page, roll, timing, bpm=90)
    step_seconds = 60 / 90 / 4
    assert len(left) == round(STEPS * step_seconds * SAMPLE_RATE)
    sound = left + right
    for drum, step in places:
        expected = (step + timing[drum, step]) * step_seconds
        start = round((expected - 0.04) * SAMPLE_RATE)
        around = sound[np.arange(start, start + 60 * 44) % len(sound)].reshape(60, 44)
        energy = (around**2).sum(1)  # of 60 ms, 40 of them before the hit
        rise = energy > 20 * energy[:20].max() + 1e-7
        assert rise.any(), f"drum {drum} is silent"
        assert abs(rise.argmax() - 40) <= 3, f"drum {drum} sounds {rise.argmax() - 40} ms late"


def test_louder_hits_are_louder_and_nothing_clips(go):
    page = go()
    roll, timing = np.zeros((9, STEPS), np.uint8), np.zeros((9, STEPS), np.float32)
    levels = []
    for velocity in (0, 20, 64, 127):
        roll[:, ::16] = velocity  # all drums at once
        sound = rendered(page, roll, timing, bpm=200)
        assert np.abs(sound).max() < 1
        levels.append(np.square(sound).mean())
    assert levels[0] == 0
    assert (np.diff(levels) > 0).all()


def rendered(page, roll, timing, bpm) -> np.ndarray:
    """The WAV file's sound, float (2, samples)."""
    show(page, roll, timing)
    script = """
      const bytes = await musicvae.renderWav(page.drums, page.grid, argument);
      const reader = new FileReader();
      reader.readAsDataURL(new Blob([bytes]));
      await new Promise((done) => (reader.onload = done));
      return reader.result.split(",")[1];
    """
    with wave.open(io.BytesIO(base64.b64decode(call(page, script, bpm)))) as file:
        assert (file.getnchannels(), file.getframerate()) == (2, SAMPLE_RATE)
        frames = np.frombuffer(file.readframes(file.getnframes()), "<i2")
    return frames.reshape(-1, 2).T / 32768


FAKE_CLOCK = """
  const drums = musicvae.silence(page.grid);
  drums.pianoRoll.fill(90, 0, 64);
  const now = { drums, grid: page.grid, bpm: 200 }, hits = [];
  const player = new musicvae.Player(() => now);
  player.context = { currentTime: 0 };
  player.kit = { bus: () => ({}), hit: (drum, velocity, time) => hits.push([velocity, time]) };
  player.start();
  const pass = (seconds, step = 0.02) => {
    const end = player.context.currentTime + seconds;
    for (; player.context.currentTime < end; player.context.currentTime += step) player.schedule();
  };
"""


def scheduled_hits(page, script: str) -> tuple[np.ndarray, np.ndarray]:
    """The velocities and the times of hits of a drum on each step, while a fake clock runs."""
    end = "clearInterval(player.timer); return hits;"
    velocities, times = np.array(call(page, FAKE_CLOCK + script + end)).T
    return velocities, times


FAST, SLOW = 60 / 200 / 4, 60 / 100 / 4


def test_hits_are_evenly_spaced_also_where_the_groove_changes(go):
    script = """
      pass(2);
      now.drums = { pianoRoll: drums.pianoRoll.map((v) => v && 50), timing: drums.timing };
      pass(8);
    """
    velocities, times = scheduled_hits(go(), script)
    assert len(times) > 2 * STEPS
    np.testing.assert_allclose(np.diff(times), FAST, atol=1e-6)
    assert (np.diff(velocities) != 0).sum() == 1


def test_a_change_of_tempo_loses_and_repeats_nothing(go):
    _, times = scheduled_hits(go(), "pass(2); now.bpm = 100; pass(2);")
    gaps = np.diff(times)
    change = np.flatnonzero(gaps > FAST + 1e-6)[0]
    np.testing.assert_allclose(gaps[:change], FAST, atol=1e-6)
    np.testing.assert_allclose(gaps[change], (FAST + SLOW) / 2, atol=1e-6)
    np.testing.assert_allclose(gaps[change + 1 :], SLOW, atol=1e-6)


def test_a_page_that_was_held_up_goes_on_in_time(go):
    _, times = scheduled_hits(go(), "pass(1); player.context.currentTime += 1; pass(1);")
    places = (times - times[0]) / FAST
    late = places - np.round(places)
    assert (np.abs(late) > 1e-6).sum() <= 1
    assert np.diff(places).max() > 8  # those in between are left out
    np.testing.assert_allclose(np.diff(places)[-5:], 1, atol=1e-6)


def test_play_before_the_model_is_loaded_plays_when_it_is(context, site):
    page = context.new_page()
    page.goto(site, wait_until="commit")
    page.click("#play")
    page.wait_for_selector(".playhead.on")
    page.close()


def test_play_starts_and_stops(go):
    page = go()
    page.click("#play")
    assert page.get_attribute("#play", "aria-label") == "Stop"
    page.wait_for_selector(".playhead.on")
    page.click("#play")
    page.wait_for_selector(".playhead:not(.on)", state="attached")
    assert page.get_attribute("#play", "aria-label") == "Play"


# -- MIDI


def test_saved_midi_is_read_back_and_whole_bars_long(go, tmp_path):
    page = go("#seed=11&bpm=93")
    roll, timing = shown_drums(page)
    timing[:, 0] = np.abs(timing[:, 0])  # Python's reader knows no loops
    show(page, roll, timing)
    midi = downloaded(page, "#midi", tmp_path)
    windows = MusicVAEProcessor()(str(midi))
    np.testing.assert_array_equal(windows["piano_roll"][0], roll)
    np.testing.assert_allclose(windows["timing"][0], timing, atol=0.5 / 120 + 1e-6)
    assert windows["bpm"][0] == pytest.approx(93, abs=1e-3)
    tracks = mido.MidiFile(midi).tracks
    assert [sum(message.time for message in track) for track in tracks] == 2 * [4 * 4 * 480]


def test_an_early_first_hit_comes_back_over_the_end_of_the_loop(go, tmp_path):
    page = go()
    roll, timing = np.zeros((9, STEPS), np.uint8), np.zeros((9, STEPS), np.float32)
    roll[0, 0], timing[0, 0] = 100, -0.25
    show(page, roll, timing)
    midi = downloaded(page, "#midi", tmp_path)
    page.set_input_files("#file", midi)
    wait_for_status(page, ".mid")
    assert_same_drums(shown_drums(page), (roll, timing))


def test_pythons_midi_is_read(go, tmp_path):
    rng = np.random.default_rng(0)
    roll = np.where(rng.random((9, 2 * STEPS)) < 0.2, rng.integers(1, 128, (9, 2 * STEPS)), 0)
    roll = roll.astype(np.uint8)
    timing = np.where(roll > 0, rng.integers(-50, 50, roll.shape) / 120, 0).astype(np.float32)
    timing[:, 0] = 0
    MusicVAEProcessor().decode(roll, timing, bpm=77).write(str(tmp_path / "drums.mid"))
    page = go()
    page.set_input_files("#file", tmp_path / "drums.mid")
    wait_for_status(page, ".mid")
    assert_same_drums(shown_drums(page), (roll[:, :STEPS], timing[:, :STEPS]))
    page.select_option("#windows", label="5 to 8")
    assert_same_drums(shown_drums(page), (roll[:, STEPS:], timing[:, STEPS:]))
    assert page.input_value("#bpm") == "77"


@pytest.mark.parametrize(
    ("messages", "said"),
    [
        ([], "found no note"),
        ([(9, 36), ("time_signature", 3)], "found 3/4, expected 4/4"),
        ([(0, 36), (1, 38)], "found notes on channels 1, 2"),
        ([(9, 1)], "found no pitch of a General MIDI kit"),
        ([(3, 36)], "read channel 4"),
        ([(9, 36), (9, 1)], "1 note of no drum (pitches 1)"),
        ([(9, 36), (9, 36)], "1 note merged with a louder one on the same step"),
    ],
    ids=["no notes", "metre", "channels", "no drums", "one channel", "pitches", "merged"],
)
def test_what_is_wrong_with_a_midi_file_is_said(go, tmp_path, messages, said):
    track = mido.MidiTrack()
    for message in messages:
        if message[0] == "time_signature":
            track.append(mido.MetaMessage("time_signature", numerator=message[1]))
        else:
            track.append(mido.Message("note_on", channel=message[0], note=message[1], velocity=90))
    mido.MidiFile(tracks=[track]).save(tmp_path / "file.mid")
    page = go()
    page.set_input_files("#file", tmp_path / "file.mid")
    wait_for_status(page, "file.mid")
    assert said in status(page)


@pytest.mark.parametrize("cut", [0, 3, 13, 30, 45])
def test_a_damaged_midi_file_is_refused(go, tmp_path, cut):
    MusicVAEProcessor().decode(np.full((9, STEPS), 64, np.uint8)).write(str(tmp_path / "a.mid"))
    (tmp_path / "file.mid").write_bytes((tmp_path / "a.mid").read_bytes()[:cut])
    page = go()
    before = shown_drums(page)
    page.set_input_files("#file", tmp_path / "file.mid")
    page.wait_for_selector("#status.error")
    assert status(page).startswith("file.mid: found")
    assert_same_drums(shown_drums(page), before)


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


# -- Tasks


def test_humanizing_keeps_the_hits_and_changes_their_touch(go):
    page = go("#seed=2")
    page.click(".cell >> nth=5")
    roll, timing = shown_drums(page)
    page.click("#humanize")
    wait_for_status(page, "Humanized")
    humanized, touch = shown_drums(page)
    np.testing.assert_array_equal(humanized > 0, roll > 0)
    assert (humanized != roll).any() and (touch != timing).any()


def test_adding_a_hihat_keeps_where_the_other_drums_are(go):
    page = go("#seed=2")
    roll, _ = shown_drums(page)
    page.click("#add")
    wait_for_status(page, "Hi-hat")
    added, _ = shown_drums(page)
    others = np.arange(9) != 2
    np.testing.assert_array_equal(added[others] > 0, roll[others] > 0)


def test_taps_on_the_keyboard_become_drums(go):
    page = go("#bpm=100")
    page.click("#record")
    wait_for_status(page, "Four clicks")
    call(page, "clearTimeout(page.taps.timer)")  # time is what the test says
    step_seconds = 60 / 100 / 4
    for key, place in [("j", 0.2), ("f", 5.9), ("j", 31.7)]:
        call(page, "page.player.heardTime = () => page.taps.start + argument", place * step_seconds)
        page.keyboard.press(key)
    roll, timing = shown_drums(page)
    steps = np.flatnonzero(roll[1])
    assert steps.tolist() == [0, 6, 32, 38]
    assert roll[1, steps].tolist() == [105, 55, 105, 55]
    assert timing[1, steps] == pytest.approx([0.2, -0.1, 0.2, -0.1], abs=1e-5)
    call(page, "delete page.player.heardTime; await page.endTaps(true)")
    assert status(page).startswith("Drums for your rhythm")
    assert (shown_drums(page)[0] > 0).sum() > 6
    assert page.get_attribute("#play", "aria-label") == "Stop"


def test_a_slider_changes_drums_that_were_edited(go):
    page = go("#seed=2")
    page.click(".cell >> nth=5")
    page.fill("#attribute-swing", "3")
    wait_for_status(page, "A variation")


# -- Missing and damaged models


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda folder: (folder / "decoder.onnx").unlink(), "decoder.onnx: found status 404"),
        (lambda folder: flip(folder / "decoder.onnx"), "decoder.onnx: found damaged data"),
        (lambda folder: cut(folder / "latents.bin"), "latents.bin: found 927 bytes, expected 928"),
        (lambda folder: cut(folder / "musicvae.json"), "found text that is no JSON"),
        (lambda folder: edit(folder, format=2), "found format 2, expected 1"),
    ],
    ids=["missing", "damaged", "cut", "description", "format"],
)
def test_a_damaged_model_is_reported_in_words(open_page, own_model, damage, said):
    damage(own_model("groove"))
    page = open_page()
    assert said in status(page)
    assert page.locator("#status.error").count() == 1


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


# -- For everyone


def test_hits_are_edited_with_the_keyboard(go):
    page = go("#seed=2")
    page.click("#clear")
    page.focus(".cell")
    for key in ["ArrowDown", "ArrowRight", "ArrowRight", "Space", "+"]:
        page.keyboard.press(key)
    roll, _ = shown_drums(page)
    assert (roll > 0).sum() == 1 and roll[1, 2] == 110
    focused = page.evaluate("document.activeElement.ariaLabel")
    assert focused == "snare, bar 1, beat 1 and: velocity 110"
    page.keyboard.press("Enter")
    assert not shown_drums(page)[0].any()


def test_every_control_has_a_name(go):
    page = go()
    nameless = page.evaluate(
        """() => [...document.querySelectorAll("button, input, select, [tabindex]")]
            .filter((each) => each.offsetParent)
            .filter((each) => !(each.ariaLabel || each.innerText || each.labels?.[0]?.innerText))
            .map((each) => each.outerHTML)"""
    )
    assert nameless == []
    assert page.get_attribute("#status", "aria-live") == "polite"


@pytest.mark.parametrize("width", [360, 390, 768, 1280])
def test_nothing_reaches_beyond_the_screen(go, width):
    page = go()
    page.set_viewport_size({"width": width, "height": 800})
    # The page is laid out anew some time after the screen has changed.
    page.wait_for_function(f"document.documentElement.scrollWidth <= {width}")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_dark_and_light_follow_the_system_until_chosen(go, scheme):
    page = go()
    page.evaluate("localStorage.clear()")
    page.emulate_media(color_scheme={"light": "dark", "dark": "light"}[scheme])
    page.emulate_media(color_scheme=scheme)
    page.wait_for_selector(f"html[data-theme={scheme}]")
    page.click("#theme")
    page.wait_for_selector(f"html:not([data-theme={scheme}])")
    page.emulate_media(color_scheme={"light": "dark", "dark": "light"}[scheme])
    page.emulate_media(color_scheme=scheme)
    assert page.get_attribute("html", "data-theme") != scheme


def test_calm_is_respected(go):
    page = go()
    page.emulate_media(reduced_motion="reduce")
    page.click("#play")
    page.wait_for_selector(".playhead.on", state="attached")
    page.wait_for_timeout(300)
    assert page.evaluate("document.getAnimations().length") == 0
    page.click("#play")
