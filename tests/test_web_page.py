"""The page: links, controls, tasks, and that everyone can use it."""

import numpy as np
import pytest
from browser_page import assert_same_drums, call, shown_drums, status, wait_for_status

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
