"""Sound and MIDI of the page."""

import base64
import io
import wave

import mido
import numpy as np
import pytest
from browser_page import (
    STEPS,
    assert_same_drums,
    call,
    downloaded,
    show,
    shown_drums,
    status,
    wait_for_status,
)

from processing import MusicVAEProcessor

pytest_plugins = ["browser_page"]
pytestmark = pytest.mark.slow
SAMPLE_RATE = 44_100


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


def test_saved_sound_is_as_long_as_its_bars(go, tmp_path):
    path = downloaded(go("#seed=11&bpm=93"), "#wav", tmp_path)
    assert path.name == "groove-11.wav"
    with wave.open(str(path)) as file:
        assert file.getnframes() == round(16 * 60 / 93 * SAMPLE_RATE)
        assert any(file.readframes(file.getnframes()))


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


def test_a_midi_file_is_dropped_anywhere(go, tmp_path):
    roll = np.zeros((9, STEPS), np.uint8)
    roll[1, ::8] = 77
    MusicVAEProcessor().decode(roll).write(str(tmp_path / "drums.mid"))
    page = go()
    file = page.evaluate_handle(
        """bytes => {
            const data = new DataTransfer();
            data.items.add(new File([Uint8Array.from(bytes)], "drums.mid"));
            return data;
        }""",
        list((tmp_path / "drums.mid").read_bytes()),
    )
    page.dispatch_event("footer", "dragover", {"dataTransfer": file})
    assert page.is_visible("#drop")
    page.dispatch_event("footer", "drop", {"dataTransfer": file})
    wait_for_status(page, "drums.mid: 8 hits")
    assert not page.is_visible("#drop")
    np.testing.assert_array_equal(shown_drums(page)[0], roll)


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
