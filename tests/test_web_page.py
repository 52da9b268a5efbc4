"""The page: links, controls, tasks, and that everyone can use it."""

import numpy as np
import pytest
from browser_page import (
    STEPS,
    assert_same_drums,
    call,
    show,
    shown_drums,
    status,
    wait_for_status,
)

pytest_plugins = ["browser_page"]
pytestmark = pytest.mark.slow


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


def test_the_button_copies_the_link(open_page, context):
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    page = open_page("#seed=8")
    page.click("#share")
    wait_for_status(page, "The link is copied")
    assert page.evaluate("navigator.clipboard.readText()") == page.url
    context.clear_permissions()


# -- The piano roll


def test_marks_show_velocity_and_timing(go):
    page = go()
    page.emulate_media(reduced_motion="reduce")  # marks do not grow slowly
    roll, timing = np.zeros((9, STEPS), np.uint8), np.zeros((9, STEPS), np.float32)
    roll[0, [0, 4, 8, 12]] = [30, 60, 90, 120]
    timing[0, [0, 4, 8, 12]] = [-0.4, -0.1, 0, 0.3]
    show(page, roll, timing)
    heights, places, colours = [], [], []
    for step in (0, 4, 8, 12):
        cell, mark = (page.locator(f"{part} >> nth={step}") for part in (".cell", ".cell i"))
        cell_box, mark_box = cell.bounding_box(), mark.bounding_box()
        heights.append(mark_box["height"])
        places.append((mark_box["x"] + mark_box["width"] / 2 - cell_box["x"]) / mark_box["width"])
        colours.append(float(mark.evaluate("mark => getComputedStyle(mark).opacity")))
    page.emulate_media(reduced_motion="no-preference")
    assert heights == sorted(set(heights))
    assert colours == sorted(set(colours))
    centre = places[2]
    assert np.subtract(places, centre) == pytest.approx([-0.4, -0.1, 0, 0.3], abs=0.02)


def test_hits_light_up_when_they_sound(go):
    page = go()
    roll, timing = np.zeros((9, STEPS), np.uint8), np.zeros((9, STEPS), np.float32)
    roll[[0, 1, 2, 3], [4, 4, 4, 5]], timing[[1, 2], 4] = 100, [0.3, -0.3]
    show(page, roll, timing)
    script = """
      page.roll.follow(3.9, false);
      page.roll.follow(4.1, false);
      const isLit = (animation) => !(animation instanceof CSSTransition);
      const lit = (cell) => cell.firstChild.getAnimations().some(isLit);
      return page.roll.cells.flatMap((cell, i) => (lit(cell) ? [i] : []));
    """
    kick_on_the_beat = 4
    assert call(page, script) == [kick_on_the_beat]  # the others are early, late and a step later


# -- Controls and tasks


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


def test_taps_become_drums_that_follow_them(go):
    page = go("#bpm=100")
    page.click("#record")
    wait_for_status(page, "Four clicks")
    call(page, "clearTimeout(page.taps.timer)")  # time is what the test says
    step_seconds = 60 / 100 / 4
    for place, tap in [
        (0.2, lambda: page.keyboard.press("j")),
        (5.9, lambda: page.keyboard.press("f")),
        (31.7, lambda: page.click("#tap-loud")),
    ]:
        call(page, "page.player.heardTime = () => page.taps.start + argument", place * step_seconds)
        tap()
    roll, timing = shown_drums(page)
    steps = np.flatnonzero(roll[1])
    assert steps.tolist() == [0, 6, 32, 38]
    assert roll[1, steps].tolist() == [105, 55, 105, 55]
    assert timing[1, steps] == pytest.approx([0.2, -0.1, 0.2, -0.1], abs=1e-5)
    call(page, "delete page.player.heardTime; await page.endTaps(true)")
    assert status(page).startswith("Drums for your rhythm")
    made, made_timing = shown_drums(page)
    assert (made > 0).sum() > 6
    for step in steps[made[:, steps].any(0)]:
        assert made[:, step].max() == roll[1, step]
        assert (made_timing[made[:, step] > 0, step] == timing[1, step]).all()
    assert page.get_attribute("#play", "aria-label") == "Stop"


def test_of_two_things_the_last_that_is_asked_for_counts(go):
    page = go("#seed=2")
    call(page, "await Promise.all([page.transform('humanize'), page.newGroove(9)])")
    expected = shown_drums(page)
    assert status(page).startswith("Groove 9")
    call(page, "await page.newGroove(9)")
    assert_same_drums(shown_drums(page), expected)


def test_a_slider_changes_drums_that_were_edited(go):
    page = go("#seed=2")
    page.click(".cell >> nth=5")
    page.fill("#attribute-swing", "3")
    wait_for_status(page, "A variation")


def test_a_variation_is_near_what_plays_and_not_the_same(go):
    page = go("#seed=2")
    before, _ = shown_drums(page)
    page.click("#vary")
    wait_for_status(page, "A variation")
    assert 0 < ((shown_drums(page)[0] > 0) != (before > 0)).mean() < 0.5


def test_a_reset_takes_attributes_back(go):
    page = go("#seed=2")
    before = shown_drums(page)
    page.fill("#attribute-density", "3")
    page.wait_for_function("location.hash.includes('density=3')")
    page.click("#reset")
    page.wait_for_function("!location.hash.includes('density')")
    assert page.input_value("#attribute-density") == "0"
    assert_same_drums(shown_drums(page), before)


# -- For everyone


@pytest.mark.parametrize(
    ("role", "name"),
    [
        ("button", "Play"),
        ("button", "New groove"),
        ("button", "Dark or light"),
        ("slider", "Tempo"),
        ("slider", "Temperature"),
        ("slider", "Density"),
        ("slider", "Between four grooves"),
        ("combobox", "Style"),
        ("grid", "Piano roll"),
        ("rowheader", "closed hi-hat"),
        ("gridcell", "kick, bar 1, beat 1: "),
        ("gridcell", "ride, bar 4, beat 4 a: "),
        ("status", ""),
    ],
)
def test_a_screen_reader_finds_it(go, role, name):
    assert go().get_by_role(role, name=name).count() == 1


@pytest.fixture
def phone(browser, site):
    """The page on a touch screen of a phone's width."""
    context = browser.new_context(
        viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True
    )
    context.set_default_timeout(120_000)
    page = context.new_page()
    page.goto(f"{site}#seed=2")
    call(page, "await musicvae.ready")
    yield page
    context.close()


def test_a_phone_plays_and_edits(phone):
    phone.tap("#clear")
    last_step_of_the_snare = 2 * STEPS - 1
    phone.tap(f".cell >> nth={last_step_of_the_snare}")
    roll, _ = shown_drums(phone)
    assert np.argwhere(roll).tolist() == [[1, STEPS - 1]]
    first_box, last_box = (
        phone.locator(f".cell >> nth={cell}").bounding_box() for cell in (0, last_step_of_the_snare)
    )
    assert last_box["y"] > first_box["y"] + 100  # the last two bars are below the first two
    assert min(first_box["width"], last_box["width"]) > 7
    phone.tap("#play")
    phone.wait_for_selector(".playhead.on")


CONTRASTS = """() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const paint = (colours) => {
    canvas.clearRect(0, 0, 1, 1);
    for (const colour of colours) { canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1); }
    return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const light = (rgb) => {
    const [r, g, b] = rgb.map((c) => c / 255).map(
      (c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const texts = [...document.querySelectorAll("h1, h2, p, label, button, select, kbd")];
  const seen = texts.filter((each) => each.offsetParent && each.innerText && !each.disabled);
  return seen.map((each) => {
    const grounds = [];
    for (let at = each; at; at = at.parentElement) {
      grounds.unshift(getComputedStyle(at).backgroundColor);
    }
    const ground = paint(grounds);
    const pair = [light(ground), light(paint([...grounds, getComputedStyle(each).color]))];
    const contrast = (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05);
    return [each.innerText.slice(0, 20), contrast];
  });
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_in_dark_and_light(go, scheme):
    """A contrast of 4.5, as WCAG asks for."""
    page = go()
    page.emulate_media(reduced_motion="reduce")
    page.evaluate("theme => document.documentElement.dataset.theme = theme", scheme)
    contrasts = page.evaluate(CONTRASTS)
    page.emulate_media(reduced_motion="no-preference")
    assert len(contrasts) > 20
    assert [each for each in contrasts if each[1] < 4.5] == []


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


@pytest.mark.parametrize(("scheme", "other"), [("light", "dark"), ("dark", "light")])
def test_dark_and_light_follow_the_system_until_chosen(open_page, scheme, other):
    page = open_page()
    page.evaluate("localStorage.clear()")
    page.emulate_media(color_scheme=other)
    page.reload()
    page.wait_for_selector(f"html[data-theme={other}]")
    page.emulate_media(color_scheme=scheme)
    page.wait_for_selector(f"html[data-theme={scheme}]")
    page.click("#theme")
    page.wait_for_selector(f"html[data-theme={other}]")
    page.reload()
    page.wait_for_selector(f"html[data-theme={other}]")
    page.evaluate("localStorage.clear()")  # the other tests' pages follow the system


def test_calm_is_respected(go):
    page = go()
    page.emulate_media(reduced_motion="reduce")
    page.click("#play")
    page.wait_for_selector(".playhead.on", state="attached")
    page.wait_for_timeout(300)
    assert page.evaluate("document.getAnimations().length") == 0
    page.click("#play")
