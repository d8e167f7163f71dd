"""The page in a real browser: one headless Chromium for all of these tests; where there is none they are skipped."""

from __future__ import annotations

import os
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uvicorn
from desks import PLACES, make_desk, make_truth, take
from toys import World, moving, still

from masklet.core.result import VideoResult
from masklet.core.rle import Rle, decode_rle_counts
from masklet.view.desk import Desk
from masklet.view.report import write_report_folder, write_report_page
from masklet.view.server import LOOPBACK, Gate, build_app

pytestmark = pytest.mark.skipif(
    not (shutil.which("chromedriver") and shutil.which("chromium")), reason="no Chromium with its driver here"
)

TOKEN = "t0ken-of-a-test"
FLAGS = (
    *("headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking"),
    *("disable-component-update", "disable-sync", "hide-scrollbars", "force-device-scale-factor=1"),
)
WIDE, NARROW = (1440, 900), (760, 1000)
EVIL = "<script>window.pwned=1</script><img src=x onerror=window.pwned=1>"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Chromium without a window."""
    webdriver = pytest.importorskip("selenium.webdriver")
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for flag in (*FLAGS, f"user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    made = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    made.set_window_size(*WIDE)
    made.set_script_timeout(60)
    yield made
    made.quit()


class Served:
    """Open videos behind a server on a thread."""

    def __init__(self, *desks: Desk) -> None:
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        config = uvicorn.Config(
            build_app(desks, Gate(TOKEN, LOOPBACK, self.port)), log_level="error", lifespan="off", ws="none"
        )
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run, args=([self.socket],), daemon=True)
        self.thread.start()

    def stop(self) -> None:
        self.server.should_exit = self.server.force_exit = True
        self.thread.join(10)
        self.socket.close()


class Page:
    """The page as a user has it before them."""

    def __init__(self, browser: Any) -> None:
        self.browser = browser
        self.served: list[Served] = []
        self.unreachable = False

    def open(self, address: str) -> None:
        self.browser.get(address)
        self.wait("return Boolean(document.body?.dataset.shown)")

    def run(self, script: str) -> Any:
        return self.browser.execute_script(script)

    def wait(self, script: str, seconds: float = 30) -> None:
        """Until a script returns what is true."""
        end = time.monotonic() + seconds
        while not self.run(script):
            assert time.monotonic() < end, f"never true: {script}; banner: {self.text('#banner')}"
            time.sleep(0.02)

    def find(self, selector: str) -> Any:
        return self.browser.find_element("css selector", selector)

    def text(self, selector: str) -> str:
        return str(self.run(f"return document.querySelector({selector!r})?.textContent ?? ''"))

    def click(self, selector: str) -> None:
        self.find(selector).click()

    def press(self, *keys: str) -> None:
        from selenium.webdriver import ActionChains

        chain = ActionChains(self.browser)
        for key in keys:
            *held, last = key.split("+") if len(key) > 1 else [key]
            codes = [getattr(__import__("selenium.webdriver", fromlist=["Keys"]).Keys, name.upper()) for name in held]
            for code in codes:
                chain.key_down(code)
            chain.send_keys(
                getattr(__import__("selenium.webdriver", fromlist=["Keys"]).Keys, last.upper())
                if len(last) > 1
                else last
            )
            for code in codes:
                chain.key_up(code)
        chain.perform()

    def go_to(self, frame: int) -> None:
        field = self.find("#frame")
        field.clear()
        field.send_keys(str(frame), "\n")
        self.run("document.activeElement.blur()")
        self.wait_for_frame(frame)

    def wait_for_frame(self, frame: int) -> None:
        self.wait(f"return state.shown === {frame} && state.frame === {frame} && !state.stale")

    def wait_for_edits(self, count: int) -> None:
        """Until so many lines are in the log, and the masks of then are shown."""
        self.wait(f"return state.video.edits.length === {count} && !state.stale && !loading && state.busy === 0")

    def locate(self, x: float, y: float) -> tuple[int, int]:
        """Where a place of the frame is, from the middle of the canvas."""
        a, b = self.run(
            "const c = document.getElementById('canvas').getBoundingClientRect(), at = layout();"
            f"return [at.left + {x} * at.sx - c.width / 2, at.top + {y} * at.sy - c.height / 2]"
        )
        return round(a), round(b)

    def point(self, x: float, y: float, *held: str) -> None:
        self.drag([(x, y)], *held)

    def drag(self, places: list[tuple[float, float]], *held: str) -> None:
        """Presses the button at the first place of the frame and lets it go at the last."""
        from selenium.webdriver import ActionChains, Keys

        chain, canvas = ActionChains(self.browser, duration=20), self.find("#canvas")
        for key in held:
            chain.key_down(getattr(Keys, key.upper()))
        chain.move_to_element_with_offset(canvas, *self.locate(*places[0])).click_and_hold()
        for place in places[1:]:
            chain.move_to_element_with_offset(canvas, *self.locate(*place))
        chain.release()
        for key in held:
            chain.key_up(getattr(Keys, key.upper()))
        chain.perform()

    def colour(self, x: float, y: float) -> list[int]:
        """What the canvas shows at a place of the frame."""
        return list(
            self.run(
                "drawNow(); const c = document.getElementById('canvas'), at = layout();"
                f"return [...c.getContext('2d').getImageData(at.left + {x} * at.sx, at.top + {y} * at.sy, 1, 1).data]"
            )[:3]
        )

    def stop_servers(self) -> None:
        for one in self.served:
            one.stop()

    def logged(self) -> list[str]:
        """Errors that the browser tells of; of a server that a test stopped it may tell long after."""
        told = [str(one["message"]) for one in self.browser.get_log("browser") if one["level"] == "SEVERE"]
        return [one for one in told if not (self.unreachable and "net::ERR_" in one)]


Serve = Callable[..., Page]


@pytest.fixture
def serve(browser: Any) -> Iterator[Serve]:
    """Opens the page of some videos; in the end nothing may have gone wrong that the page does not tell."""
    page = Page(browser)
    page.logged()

    def open_page(*desks: Desk) -> Page:
        page.served.append(Served(*desks))
        page.open(f"http://127.0.0.1:{page.served[-1].port}/?token={TOKEN}")
        return page

    yield open_page
    browser.set_window_size(*WIDE)
    browser.execute_script("if (typeof state === 'object' && state.video) state.video.unsaved = false")
    browser.get("about:blank")
    page.stop_servers()
    assert page.logged() == []


def place(world: World, o: int, t: int) -> tuple[float, float]:
    """The middle of a square: x, y."""
    y, x = world.places[o](t)  # type: ignore[misc]
    return x + 3, y + 3


def near(colour: list[int], other: tuple[int, int, int], most: int = 60) -> bool:
    return max(abs(a - b) for a, b in zip(colour, other, strict=True)) < most


def test_the_page_shows_the_very_frame_with_its_masks(serve: Serve, tmp_path: Path) -> None:
    world = World((moving(3, 1, 0, 1), still(22, 22)))
    desk = make_desk(tmp_path, world)
    page = serve(desk)
    assert TOKEN not in page.browser.current_url and "toy" in page.browser.title
    assert [page.text(f".row[data-id='{n}'] .name") for n in (1, 2)] == ["red1", "green2"]
    assert "16 frames · 10 frames/s · 2 objects" in page.text("#facts")
    page.run("state.opacity = 0")
    for t, key in (
        (1, "arrow_right"),
        (2, "arrow_right"),
        (1, "arrow_left"),
        (15, "end"),
        (5, "shift+arrow_left"),
        (0, "home"),
    ):
        page.press(key)
        page.wait_for_frame(t)
        assert near(page.colour(*place(world, 0, t)), (230, 40, 40))
        assert near(page.colour(place(world, 0, t)[0] + 6, 6), (15, 15, 15))
    page.go_to(9)
    assert near(page.colour(*place(world, 0, 9)), (230, 40, 40))
    page.run("state.opacity = 1")
    left = place(world, 0, 9)[0] - 3
    assert near(page.colour(left + 0.5, 6), (255, 102, 0), 8)  # the object's own colour, from its first column on
    assert not near(page.colour(left - 0.5, 6), (255, 102, 0)) and not near(page.colour(left + 6.5, 6), (255, 102, 0))
    for t in (10, 3):
        page.go_to(t)
        shown = page.run("return current.masks.map((one) => [one.id, one.counts])")
        assert shown == [[m.id, s.mask.counts.decode()] for m, s in desk.result.at(t)]
    assert near(page.colour(30, 3), (15, 15, 15))


def test_run_lengths_are_those_of_coco(serve: Serve, tmp_path: Path) -> None:
    page, rng = serve(make_desk(tmp_path)), np.random.default_rng(0)
    for _ in range(30):
        h, w = (int(n) for n in rng.integers(1, 40, 2))
        pixels = rng.random((h, w)) < rng.random()
        pixels = pixels.repeat(rng.integers(1, 9), 0)
        counts = Rle.encode_pixels(pixels).counts.decode()
        runs, again = page.run(
            f"return [decodeCounts({counts!r}), encodeMask({pixels.astype(int).ravel().tolist()}, {w}, {len(pixels)})]"
        )
        assert runs == decode_rle_counts(counts.encode()).tolist() and again == counts


def test_scrubbing_and_playing(serve: Serve, tmp_path: Path) -> None:
    from selenium.webdriver import ActionChains

    page = serve(make_desk(tmp_path, World(PLACES, length=40)))
    ruler = page.find("#ruler")
    wide = ruler.size["width"]
    chain = (
        ActionChains(page.browser)
        .move_to_element_with_offset(ruler, round((20.5 / 40 - 0.5) * wide), 0)
        .click_and_hold()
    )
    chain.perform()
    page.wait_for_frame(20)
    chain = ActionChains(page.browser).move_to_element_with_offset(ruler, round((31.5 / 40 - 0.5) * wide), 0).release()
    chain.perform()
    page.wait_for_frame(31)
    head = page.find("#playhead").rect["x"]
    assert abs(head - (ruler.rect["x"] + wide * 31.5 / 40)) < 3  # the line is where the frame is
    page.press("home")
    started = time.monotonic()
    page.press("space")
    page.wait("return state.frame >= 20")
    assert time.monotonic() - started > 1.9 * 0.9  # ten frames a second
    page.press("space")
    assert not page.run("return state.playing")


def test_suspicious_frames_are_jumped_to(serve: Serve, tmp_path: Path) -> None:
    world = World(
        [lambda t: (3, 1) if t < 20 else (20, 20), still(12, 3), lambda t: (2, 20) if t < 30 else (25, 2)], length=40
    )
    page = serve(make_desk(tmp_path, world))
    page.wait("return document.querySelectorAll('#suspicious-list button').length === 2")
    page.press("k")
    page.wait_for_frame(20)
    assert page.run("return state.chosen") == 1
    page.click("#suspicious-next")
    page.wait_for_frame(30)
    page.press("j")
    page.wait_for_frame(20)
    assert page.text("#suspicious-list [aria-current=true]").startswith("20 · red 1 · jumps")


def test_hide_solo_choose_and_colour(serve: Serve, tmp_path: Path) -> None:
    world = World(PLACES)
    page = serve(make_desk(tmp_path, world))
    page.run("state.opacity = 1; state.labels = false")
    middles = [place(world, o, 0) for o in range(3)]
    page.point(*middles[1])
    assert page.run("return state.chosen") == 2 and page.text("#object-title") == "green 2"
    assert "Here propagated forward, confidence 0.60" in page.text("#object-facts")
    page.press("h")
    assert near(page.colour(*middles[1]), (40, 230, 40)) and near(page.colour(*middles[0]), (255, 102, 0), 8)
    page.press("h", "s")
    assert near(page.colour(*middles[0]), (230, 40, 40)) and near(page.colour(*middles[1]), (34, 119, 255), 8)
    page.press("s", "arrow_down")
    assert page.run("return state.chosen") == 3
    page.run(
        "const c = document.querySelector('.row[data-id=\"3\"] input'); c.value = '#102030'; c.dispatchEvent(new Event('input'))"
    )
    assert near(page.colour(*middles[2]), (16, 32, 48), 8)


def test_a_new_object_by_a_click_is_propagated_and_undone(serve: Serve, tmp_path: Path) -> None:
    world = World(PLACES)
    truth = make_truth(world)
    desk = make_desk(tmp_path, world, take(truth, 2))
    page = serve(desk)
    page.go_to(4)
    page.press("n")
    page.point(*place(world, 0, 4))
    page.wait_for_edits(1)
    assert page.run("return [state.chosen, state.points.length, state.creating]") == [3, 1, False]
    page.point(*place(world, 2, 4), "shift")  # what is beside it: the toy looks at the first point alone
    page.wait_for_edits(2)
    assert page.run("return state.points.map((one) => one[2])") == [True, False]
    page.press("g")
    page.wait_for_edits(3)
    page.wait("return !isWorking()")
    want = {t: s.mask for t, s in truth.masklets[0].sightings.items()}
    assert {t: s.mask for t, s in desk.result.masklets[1].sightings.items()} == want
    page.press("end")
    page.wait_for_frame(15)
    page.run("state.opacity = 1; state.labels = false")
    assert near(page.colour(*place(world, 0, 15)), (102, 255, 238), 8)
    for _ in range(3):
        page.press("control+z")
        page.wait("return state.busy === 0")
    page.wait_for_edits(0)
    assert page.find("#undo").get_attribute("disabled") and len(desk.result.masklets) == 1
    page.press("control+shift+z")
    page.wait_for_edits(1)
    assert len(desk.result.masklets) == 2


def test_a_box_a_brush_an_eraser_and_the_keyboard_alone(serve: Serve, tmp_path: Path) -> None:
    world = World(PLACES)
    truth = make_truth(world)
    desk = make_desk(tmp_path, world, take(truth, 1, 2))
    page = serve(desk)
    page.press("b", "n")
    (x, y), own = place(world, 2, 0), truth.masklets[2].sightings[0].mask
    page.drag([(x - 3, y - 3), (x + 3, y + 3)])
    page.wait_for_edits(1)
    assert desk.result.masklets[2].sightings[0].mask == own
    page.press("e")
    page.run("setSize(2)")
    page.drag([(x - 3, y), (x + 3, y)])
    page.wait_for_edits(2)
    rest = desk.result.masklets[2].sightings[0].mask
    assert 0 < rest.area < own.area and rest.overlap(own) == rest.area
    assert not rest.decode_pixels()[int(y), int(x)] and rest.decode_pixels()[int(y - 3), int(x)]
    page.press("p")
    page.drag([(x - 2, y), (x + 2, y)])
    page.wait_for_edits(3)
    whole = desk.result.masklets[2].sightings[0].mask.decode_pixels()
    assert whole[int(y), int(x)] and whole.sum() > rest.area
    page.press("c", "n", *["alt+arrow_up"] * 10, *["alt+shift+arrow_left"] * 6)
    cross = page.run("return state.crosshair")
    assert cross == [4, 6]
    page.press("alt+enter")
    page.wait_for_edits(4)
    assert desk.result.masklets[3].sightings[0].mask == truth.masklets[0].sightings[0].mask


def test_rename_merge_split_drop_and_reload(serve: Serve, tmp_path: Path) -> None:
    desk = make_desk(tmp_path)
    before = desk.result
    page = serve(desk)
    page.click(".row[data-id='2'] .name")
    page.press("r")
    page.run("document.getElementById('name').select()")
    page.find("#name").send_keys("frog", "\n")
    page.wait_for_edits(1)
    page.run("document.activeElement.blur()")
    page.find("#merge-with").send_keys("blue 3")
    page.click("#merge button")
    page.wait_for_edits(2)
    page.go_to(6)
    page.press("x")
    page.wait_for_edits(3)
    page.click(".row[data-id='1'] .name")
    page.run("document.activeElement.blur()")
    page.press("delete")
    page.wait_for_edits(4)
    assert desk.result == before.rename(2, "frog").merge(2, 3).split(2, 6).drop(1)
    page.run("state.video.unsaved = false")  # or the browser asks whether to leave
    page.open(f"http://127.0.0.1:{page.served[-1].port}/")
    assert [row.text.split() for row in page.browser.find_elements("css selector", ".row .name")] == [
        ["frog", "2"],
        ["frog", "3"],
    ]
    assert page.text("#edits").endswith("drop 1")


def test_save_and_export(serve: Serve, tmp_path: Path) -> None:
    desk = make_desk(tmp_path / "out")
    page = serve(desk)
    page.click(".row[data-id='2'] .name")
    page.click("#drop")
    page.wait_for_edits(1)
    assert page.text("#save") == "Save •"
    page.press("control+s")
    page.wait("return document.getElementById('banner').textContent.startsWith('Saved: ')")
    assert VideoResult.load(tmp_path / "out" / "toy" / "masklets.json") == desk.result
    page.click("#export-open")
    page.click("#export-form button")
    page.wait("return document.body.dataset.ended === 'export'")
    assert page.text("#banner") == f"Exported: {tmp_path / 'out' / 'toy-coco'}"
    assert (tmp_path / "out" / "toy-coco" / "annotations.json").is_file()


def test_comparison_with_another_result(serve: Serve, tmp_path: Path) -> None:
    world = World(PLACES)
    truth = make_truth(world)
    page = serve(make_desk(tmp_path, world, take(truth, 1, 2).trim(0, 8, 1), others={"truth": truth}))
    page.find("#others").send_keys("truth")
    page.wait("return state.comparison !== null")
    assert page.text("#compare-facts") == "2 objects in both, 0 only here, 1 only there."
    page.go_to(12)
    rows = [row.text.split() for row in page.browser.find_elements("css selector", "#pairs tbody tr")]
    assert sorted(rows) == [["green", "2", "2", "1.00", "1.00"], ["red", "1", "1", "0.00", "0.50"]]


def test_several_videos_in_a_list(serve: Serve, tmp_path: Path) -> None:
    other = World((still(20, 4),), length=9)
    second = make_desk(tmp_path, other, make_truth(other, ("yellow",), "second"))
    page = serve(make_desk(tmp_path), second)
    page.find("#videos").send_keys("second")
    page.wait("return state.video?.name === 'second' && state.shown === 0")
    page.run("state.opacity = 0")
    assert near(page.colour(7, 23), (230, 40, 40)) and near(page.colour(25, 25), (15, 15, 15))
    assert page.text(".row .name") == "yellow1"


@pytest.mark.parametrize("size", [WIDE, NARROW])
def test_nothing_is_cut_off_and_everything_has_a_name(serve: Serve, tmp_path: Path, size: tuple[int, int]) -> None:
    long = "a name of very many words that no place is wide enough for " * 3
    desk = make_desk(tmp_path, result=make_truth(World(PLACES), (long, EVIL, "blue"), "clip-" + "x" * 80))
    page = serve(desk)
    page.browser.set_window_size(*size)
    page.click(".row[data-id='2'] .name")
    assert page.run("return document.documentElement.scrollWidth <= innerWidth")
    beyond = page.run(
        "return [...document.querySelectorAll('button, input, select, canvas')].filter((one) => { const box = "
        "one.getBoundingClientRect(); return box.width && (box.right > innerWidth + 1 || box.left < -1) })"
        ".map((one) => one.outerHTML)"
    )
    assert beyond == []
    nameless = page.run(
        "return [...document.querySelectorAll('button, input, select')].filter((one) => !(one.ariaLabel || "
        "one.textContent.trim() || one.labels?.[0]?.textContent.trim())).map((one) => one.outerHTML)"
    )
    assert nameless == []
    twice = page.run(
        "const ids = [...document.querySelectorAll('[id]')].map((one) => one.id); return ids.length - new Set(ids).size"
    )
    assert twice == 0


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_texts_can_be_read(serve: Serve, tmp_path: Path, theme: str) -> None:
    """Contrast of at least 4.5 to 1, as WCAG asks of texts, where the ground is one colour."""
    page = serve(make_desk(tmp_path))
    page.run(f"setTheme('{theme}')")
    page.click(".row[data-id='2'] .name")
    pairs = page.run(
        """const ground = (one) => { for (; one; one = one.parentElement) { const c = getComputedStyle(one).backgroundColor;
             if (!c.endsWith(', 0)')) return c; } return 'rgb(255, 255, 255)'; };
           return [...document.querySelectorAll('main *, header *, #time *')].filter((one) => one.offsetParent && !one.disabled
             && [...one.childNodes].some((n) => n.nodeType === 3 && n.data.trim())).map((one) =>
             [one.textContent.trim().slice(0, 30), getComputedStyle(one).color, ground(one)])"""
    )
    assert len(pairs) > 20
    for text, ink, ground in pairs:
        assert contrast(ink, ground) >= 4.5, (text, ink, ground)


def contrast(a: str, b: str) -> float:
    def light(colour: str) -> float:
        values = np.array([float(v) for v in colour[colour.index("(") + 1 : -1].split(",")[:3]]) / 255
        linear = np.where(values <= 0.03928, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    high, low = sorted((light(a), light(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_a_name_is_a_text_whatever_is_in_it(serve: Serve, tmp_path: Path) -> None:
    desk = make_desk(tmp_path, result=make_truth(World(PLACES), (EVIL, "green", "blue")))
    page = serve(desk)
    page.click(".row[data-id='1'] .name")
    page.run("document.getElementById('name').select()")
    page.find("#name").send_keys(EVIL + "2", "\n")
    page.wait_for_edits(1)
    assert page.text(".row .name .text") == EVIL + "2" and page.text("#object-title") == f"{EVIL}2 1"
    assert page.run("return window.pwned === undefined && document.querySelectorAll('img').length === 0")


def test_a_page_whose_server_has_stopped_says_so(serve: Serve, tmp_path: Path) -> None:
    page = serve(make_desk(tmp_path))
    page.unreachable = True
    page.stop_servers()
    page.press("arrow_right", "end")
    page.click(".row[data-id='2'] .name")
    page.click("#drop")
    page.wait("return document.getElementById('banner').textContent.startsWith('The server does not answer')")


def test_help_lists_the_keys(serve: Serve, tmp_path: Path) -> None:
    page = serve(make_desk(tmp_path))
    page.press("?")
    assert page.run("return document.getElementById('help').open")
    assert "propagate" in page.text("#shortcuts") and page.run("return document.querySelectorAll('kbd').length") > 30
    page.press("escape")
    assert not page.run("return document.getElementById('help').open")
    page.press("t")
    dark = page.run("return getComputedStyle(document.body).backgroundColor")
    page.press("t")
    assert dark != page.run("return getComputedStyle(document.body).backgroundColor")


@pytest.mark.parametrize("form", ["file", "folder"])
def test_a_report_needs_no_server(browser: Any, tmp_path: Path, form: str) -> None:
    world = World(PLACES, length=40)
    result = make_truth(world, (EVIL + "</script>", "green", "blue"))
    if form == "file":
        address = tmp_path / "report.html"
        write_report_page(result, world, address)
    else:
        write_report_folder(result, world, tmp_path)
        address = tmp_path / "index.html"
    page = Page(browser)
    page.logged()
    page.open(address.as_uri())
    for t in (1, 35):
        page.go_to(t)
        if form == "file":  # a browser does not tell what is in images of other files
            page.run("state.opacity = 0")
            assert near(page.colour(*place(world, 0, min(t, 20))), (230, 40, 40)) or t == 35
        page.run("state.opacity = 1")
        assert page.run("return current.masks.map((one) => one.id)") == [m.id for m, _ in result.at(t)]
    page.press("home", "arrow_right")
    page.wait_for_frame(1)
    assert page.text(".row .name .text").startswith(EVIL) and page.run("return window.pwned === undefined")
    assert page.run("return getComputedStyle(document.getElementById('save')).display") == "none"
    page.press("delete", "n", "p")
    assert page.run("return state.tool") == "select" and page.text("#banner") == ""
    assert page.run("return state.timeline.objects['2'].sources.replaceAll('f', '')") == ""
    assert page.logged() == []


def test_the_script_stays_small_and_loads_nothing_from_elsewhere() -> None:
    import masklet.view

    folder = Path(os.path.dirname(masklet.view.__file__)) / "page"
    texts = {path.name: path.read_text() for path in folder.iterdir()}
    assert len(texts["page.js"].splitlines()) < 2_500 and set(texts) == {"api.css", "index.html", "page.css", "page.js"}
    for name, text in texts.items():
        outside = [w for w in text.split() if "://" in w and "http://www.w3.org/2000/svg" not in w]
        assert not outside, name
    assert "innerHTML" not in texts["page.js"] and "eval(" not in texts["page.js"]
