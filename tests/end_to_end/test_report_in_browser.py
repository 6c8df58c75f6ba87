"""The report as a reader meets it: in a headless Chromium, driven over the DevTools protocol on a pair of pipes."""

from __future__ import annotations

import base64
import itertools
import json
import os
import select
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from experiments.report import write_report
from tests.synthetic_runs import KINDS, write_run

PATIENCE_S = 60.0

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--host-resolver-rules=MAP * ~NOTFOUND",
    "--remote-debugging-pipe",
)


class Browser:
    """A Chromium of our own. Commands go to its file descriptor 3 and answers come from 4, JSON ended by a NUL."""

    def __init__(self, executable: str, profile: Path) -> None:
        ours, self._commands = os.pipe()
        self._answers, theirs = os.pipe()
        command = [executable, *FLAGS, f"--user-data-dir={profile}", "about:blank"]
        with (profile / "log").open("wb") as log:
            ends = [(os.POSIX_SPAWN_DUP2, end, at) for end, at in ((ours, 3), (theirs, 4), (log.fileno(), 1), (1, 2))]
            self._process = os.posix_spawn(executable, command, os.environ, file_actions=ends)
        os.close(ours)
        os.close(theirs)
        self._unread = b""
        self._last = 0
        self.events: list[dict[str, Any]] = []

    def call(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        self._last += 1
        message = {"id": self._last, "method": method, "params": parameters}
        if session is not None:
            message["sessionId"] = session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self._last:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return answer["result"]
            self.events.append(answer)

    def wait(self, method: str, session: str) -> None:
        """Until an event has come that is not in `events` yet."""
        while True:
            event = self._read()
            self.events.append(event)
            if (event.get("method"), event.get("sessionId")) == (method, session):
                return

    def _read(self) -> dict[str, Any]:
        deadline = time.monotonic() + PATIENCE_S
        while b"\0" not in self._unread:
            ready, _, _ = select.select([self._answers], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, f"the browser did not answer within {PATIENCE_S:.0f} s"
            data = os.read(self._answers, 1 << 20)
            assert data, "the browser has ended"
            self._unread += data
        message, _, self._unread = self._unread.partition(b"\0")
        return json.loads(message)

    def close(self) -> None:
        self.call("Browser.close")
        os.waitpid(self._process, 0)
        os.close(self._commands)
        os.close(self._answers)


class Page:
    """One page in a tab of its own, loaded; ``scheme`` is what the reader's system prefers."""

    def __init__(
        self, browser: Browser, report: Path, *, scheme: str = "light", width: int = 1200, script: bool = True
    ):
        self._browser = browser
        target = browser.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = browser.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
        self.prefer(scheme)
        if not script:
            self.call("Emulation.setScriptExecutionDisabled", value=True)
        self.address = report.as_uri()
        self.call("Page.navigate", url=self.address)
        browser.wait("Page.loadEventFired", self._session)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        return self._browser.call(method, self._session, **parameters)

    def evaluate(self, expression: str) -> Any:
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def prefer(self, scheme: str, medium: str = "screen") -> None:
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.call("Emulation.setEmulatedMedia", media=medium, features=features)

    def mouse(self, kind: str, x: float, y: float) -> None:
        button = "none" if kind == "mouseMoved" else "left"
        self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button=button, clickCount=1)

    def press(self, key: str) -> None:
        self.call("Input.dispatchKeyEvent", type="keyDown", key=key)

    def complaints(self) -> list[Any]:
        """Exceptions, errors on the console, loads that failed or were refused."""
        wrong = []
        for event in self._mine():
            method, facts = event["method"], event["params"]
            if method in ("Runtime.exceptionThrown", "Network.loadingFailed"):
                wrong.append(facts)
            elif method == "Log.entryAdded" and facts["entry"]["level"] in ("error", "warning"):
                wrong.append(facts["entry"])
            elif method == "Runtime.consoleAPICalled" and facts["type"] in ("error", "warning", "assert"):
                wrong.append(facts)
        return wrong

    def requests(self) -> set[str]:
        asked = (event for event in self._mine() if event["method"] == "Network.requestWillBeSent")
        return {event["params"]["request"]["url"] for event in asked}

    def _mine(self) -> list[dict[str, Any]]:
        self.evaluate("0")  # what happened before this has been reported when it is answered
        return [event for event in self._browser.events if event.get("sessionId") == self._session]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    executable = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if executable is None:
        why = "no Chromium here (apt-get install chromium): the report is not looked at in a browser"
        if os.environ.get("CI"):
            pytest.fail(why, pytrace=False)
        pytest.skip(why)
    browser = Browser(executable, tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("runs")
    return {kind: write_report(write_run(root / kind, kind)) for kind in KINDS}


def brightness(page: Page, selector: str, what: str) -> float:
    """0 for black to 1 for white, of a computed colour."""
    colour = page.evaluate(
        f"""(() => {{
          const context = document.createElement("canvas").getContext("2d");
          context.fillStyle = getComputedStyle(document.querySelector({selector!r})).{what};
          context.fillRect(0, 0, 1, 1);
          return [...context.getImageData(0, 0, 1, 1).data];
        }})()"""
    )
    return sum(colour[:3]) / 3 / 255


@pytest.mark.parametrize("kind", KINDS)
def test_a_report_loads_nothing_says_no_error_and_draws_everything(
    browser: Browser, reports: dict[str, Path], kind: str
) -> None:
    page = Page(browser, reports[kind])
    assert page.complaints() == []
    assert {address for address in page.requests() if not address.startswith("data:")} == {page.address}
    # Every curve has an extent, and is where it can be seen.
    curves = page.evaluate(
        """[...document.querySelectorAll(".curves")].map((svg) => {
          const box = svg.getBoundingClientRect(), drawn = [...svg.children].map((path) => path.getBBox());
          return [svg.closest(".strip").id, box.width, Math.max(0, ...drawn.map((one) => one.width))];
        })"""
    )
    seen = {name: extent for name, width, extent in curves if width > 700}
    assert {"panel-throughput", "panel-latency", "panel-errors"} <= set(seen)
    assert seen["panel-throughput"] > 5_000
    assert seen["panel-latency"] > 5_000
    assert page.evaluate("document.querySelectorAll('.roles rect').length") >= 5
    assert page.evaluate("document.querySelectorAll('svg.fabric .node').length") >= 5
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.parametrize("width", [1024, 1440])
def test_the_page_fits_a_laptop(browser: Browser, reports: dict[str, Path], width: int) -> None:
    page = Page(browser, reports["unordered"], width=width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    # What stands in the margins of the plots is not cut off by the page.
    assert (
        page.evaluate(
            "Math.max(...[...document.querySelectorAll('.right span')].map(e => e.getBoundingClientRect().right))"
        )
        < width
    )


def test_it_is_dark_where_the_system_is_and_the_switch_goes_the_other_way(
    browser: Browser, reports: dict[str, Path]
) -> None:
    page = Page(browser, reports["held"], scheme="dark")
    assert brightness(page, "body", "backgroundColor") < 0.15
    assert brightness(page, "h1", "color") > 0.8
    assert page.evaluate("document.getElementById('theme').textContent") == "Light"
    page.evaluate("document.getElementById('theme').click()")
    assert brightness(page, "body", "backgroundColor") > 0.9
    page.prefer("light")
    page.evaluate("document.getElementById('theme').click()")
    assert brightness(page, "body", "backgroundColor") < 0.15
    assert page.complaints() == []


def plot_area(page: Page) -> tuple[float, float, float]:
    """Left, width and a height in the middle of the area over the plots, scrolled into view."""
    page.evaluate("document.getElementById('panel-latency').scrollIntoView({block: 'center'})")
    plots = page.evaluate("document.getElementById('over').getBoundingClientRect().toJSON()")
    panel = page.evaluate("document.getElementById('panel-latency').getBoundingClientRect().toJSON()")
    return plots["left"], plots["width"], panel["top"] + panel["height"] / 2


def test_pointing_at_a_moment_reads_its_values_from_every_panel(browser: Browser, reports: dict[str, Path]) -> None:
    page = Page(browser, reports["held"])
    left, width, y = plot_area(page)
    page.mouse("mouseMoved", left + width * 0.453, y)
    read = page.evaluate("document.getElementById('readout').innerText")
    assert read.startswith("9.0")
    data = json.loads(page.evaluate("document.getElementById('data').textContent"))
    assert f"answered\n{data['counts']['ok'][9_060 // data['counts']['width']]} /s" in read
    assert "n1\nleader, term 2" in read
    assert "n3\npre-candidate, term 1" in read
    page.mouse("mouseMoved", left + width * 0.45, 5)
    assert page.evaluate("document.getElementById('readout').hidden")
    assert page.complaints() == []


def test_dragging_zooms_all_plots_alike_and_the_whole_run_comes_back(
    browser: Browser, reports: dict[str, Path]
) -> None:
    page = Page(browser, reports["held"])
    views = """[...new Set([...document.querySelectorAll("svg[data-stretch]")].map((svg) =>
      `${svg.viewBox.baseVal.x} ${svg.viewBox.baseVal.width}`))]"""
    (before,) = page.evaluate(views)
    left, width, y = plot_area(page)
    page.mouse("mouseMoved", left + width * 0.25, y)
    page.mouse("mousePressed", left + width * 0.25, y)
    page.mouse("mouseMoved", left + width * 0.4, y)
    page.mouse("mouseReleased", left + width * 0.4, y)
    (zoomed,) = page.evaluate(views)
    start, extent = map(float, zoomed.split())
    assert start == pytest.approx(5_000, rel=0.02)
    assert extent == pytest.approx(3_000, rel=0.03)
    ticks = page.evaluate("[...document.querySelectorAll('#axis span')].map(e => parseFloat(e.textContent))")
    assert 5 <= min(ticks) < max(ticks) <= 8.1
    page.evaluate("document.getElementById('whole').click()")
    assert page.evaluate(views) == [before]
    assert page.complaints() == []


def test_the_plots_are_read_and_zoomed_from_the_keyboard(browser: Browser, reports: dict[str, Path]) -> None:
    page = Page(browser, reports["held"])
    page.evaluate("document.getElementById('over').focus()")
    page.press("Home")
    page.press("ArrowRight")
    assert page.evaluate("document.getElementById('over').getAttribute('aria-valuetext')").startswith("0.20")
    page.press("+")
    assert not page.evaluate("document.getElementById('whole').hidden")
    page.press("Escape")
    assert page.evaluate("document.getElementById('whole').hidden")
    assert page.complaints() == []


def test_without_script_the_verdict_the_drawings_and_the_tables_are_there(
    browser: Browser, reports: dict[str, Path]
) -> None:
    page = Page(browser, reports["unordered"], script=False)
    text = page.call("DOM.getDocument", depth=-1)
    assert text["root"]["nodeName"] == "#document"
    page.call("DOM.enable")
    root = text["root"]["nodeId"]

    def size(selector: str) -> tuple[float, float]:
        node = page.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        model = page.call("DOM.getBoxModel", nodeId=node)["model"]
        return model["width"], model["height"]

    assert size("h1")[1] > 30
    assert size("svg.fabric")[0] > 900
    assert size("#panel-latency .curves")[0] > 900
    assert size("svg.orders")[0] > 300
    assert size("table.matrix")[1] > 200
    picture = base64.b64decode(page.call("Page.captureScreenshot", format="png")["data"])
    assert len(picture) > 20_000, "a blank page is smaller"


def test_on_paper_every_fault_is_drawn_everything_is_unfolded_and_no_control_is_left(
    browser: Browser, reports: dict[str, Path]
) -> None:
    page = Page(browser, reports["link-down"], scheme="dark")
    shown = "[...document.querySelectorAll('.choice')].map(e => e.getBoundingClientRect().height > 100)"
    assert page.evaluate(shown) == [True, False]
    page.evaluate("document.querySelector('label[for=choose-1]').click()")
    assert page.evaluate(shown) == [False, True]
    page.prefer("dark", medium="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.evaluate(shown) == [True, True]
    assert page.evaluate("document.querySelector('details').open")
    assert page.evaluate(
        "[...document.querySelectorAll('button, .hint')].every(e => e.getBoundingClientRect().height === 0)"
    )
    assert brightness(page, "h1", "color") < 0.3, "ink, also for those who read in the dark"
    page.call("Emulation.setDeviceMetricsOverride", width=695, height=1017, deviceScaleFactor=1, mobile=False)
    height = page.evaluate("document.querySelector('.timeline').getBoundingClientRect().height")
    assert 500 < height < 960, "the plots share a page (A4, 96 pixels an inch)"
    paper = base64.b64decode(page.call("Page.printToPDF", preferCSSPageSize=True)["data"])
    assert paper.startswith(b"%PDF")
    assert 3 <= paper.count(b"/Type /Page\n") <= 9


@pytest.mark.parametrize("kind", ["link-down", "unordered", "two-leaders"])
def test_figures_have_names_tables_have_captions_and_headings_go_down_one_at_a_time(
    browser: Browser, reports: dict[str, Path], kind: str
) -> None:
    page = Page(browser, reports[kind])
    assert page.evaluate(
        "[...document.querySelectorAll('table')].every(t => t.caption && t.caption.textContent.trim())"
    )
    assert page.evaluate(
        """[...document.querySelectorAll("svg[role=img]")].every((svg) =>
          svg.getAttribute("aria-label") || document.getElementById(svg.getAttribute("aria-labelledby")).textContent)"""
    )
    assert page.evaluate(
        "[...document.querySelectorAll('svg')].every(s => s.hasAttribute('role') || s.hasAttribute('aria-hidden'))"
    )
    levels = page.evaluate("[...document.querySelectorAll('h1, h2, h3, h4')].map(h => Number(h.tagName[1]))")
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    assert page.evaluate("new Set([...document.querySelectorAll('[id]')].map(e => e.id)).size") == page.evaluate(
        "document.querySelectorAll('[id]').length"
    )


def test_verdicts_differ_in_shape_and_not_in_colour_alone(browser: Browser, reports: dict[str, Path]) -> None:
    signs = {}
    for kind in ("held", "unordered", "unbelievable", "died"):
        page = Page(browser, reports[kind])
        signs[kind] = page.evaluate(
            "document.querySelector(document.querySelector('h1 use').getAttribute('href')).innerHTML"
        )
    assert len(set(signs.values())) == 4
