"""The page in headless Chromium: no error, no request, nothing cut off, and tables, switches and matrix that answer.

The browser is spoken to over a pipe, with the DevTools protocol: JSON messages that end in a zero byte.
"""

import fcntl
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from neurocanvas.findings import finding
from neurocanvas.report import write_report

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
PROGRAM = next(filter(None, map(shutil.which, PROGRAMS)), None)
PATIENCE = 60.0  # s for one answer: a loaded machine is slow
DESKTOP, PHONE = (1280, 900), (390, 844)
HOSTILE = "<img src=x onerror=document.title='hacked'>\"'&"

SIZES = pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
pytestmark = pytest.mark.skipif(PROGRAM is None, reason=f"none of {', '.join(PROGRAMS)} is installed")


class Browser:
    """One page of headless Chromium, and every event that it reported since the last `open`."""

    def __init__(self, profile: Path) -> None:
        commands, self.commands = os.pipe()
        self.answers, answers = os.pipe()
        # out of the way of 3 and 4, where Chromium reads and writes
        ends = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (commands, answers)]
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--remote-debugging-pipe",
                 "--no-first-run", "--disable-dev-shm-usage", f"--user-data-dir={profile}", "about:blank"]  # fmt: skip
        self.process = subprocess.Popen(
            [str(PROGRAM), *flags], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, pass_fds=(*ends, 3, 4),
            preexec_fn=lambda: (os.dup2(ends[0], 3), os.dup2(ends[1], 4)),  # type: ignore[func-returns-value]
        )  # fmt: skip
        for end in (commands, answers, *ends):
            os.close(end)
        self.number, self.buffer, self.session = 0, b"", ""
        self.events: list[dict[str, Any]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def close(self) -> None:
        for end in (self.commands, self.answers):
            os.close(end)
        self.process.terminate()
        self.process.wait(30)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command and return its result; events on the way are kept."""
        self.number += 1
        message: dict[str, Any] = {"id": self.number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.commands, json.dumps(message).encode() + b"\0")
        return self._until(lambda found: found.get("id") == self.number)["result"]

    def wait_for(self, method: str) -> dict[str, Any]:
        """Return the event of a name, which came already or is still to come."""
        came = next((event for event in self.events if event["method"] == method), None)
        return came or self._until(lambda found: found.get("method") == method)

    def open(self, path: Path, size: tuple[int, int] = DESKTOP, *, scripts: bool = True) -> None:
        self.call("Emulation.setScriptExecutionDisabled", value=not scripts)
        screen = {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": size == PHONE}
        self.call("Emulation.setDeviceMetricsOverride", **screen)
        self.events.clear()
        self.call("Page.navigate", url=path.as_uri())
        self.wait_for("Page.loadEventFired")

    def ask(self, expression: str) -> Any:
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in found:
            raise AssertionError(found["exceptionDetails"])
        return found["result"].get("value")

    def press(self, key: str) -> None:
        code = {"Tab": 9, "Enter": 13, "ArrowRight": 39}[key]
        for kind in ("keyDown", "keyUp"):
            more = {"text": "\r"} if key == "Enter" and kind == "keyDown" else {}
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, **more)

    def _until(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        end = time.monotonic() + PATIENCE
        while True:
            while b"\0" in self.buffer:
                line, self.buffer = self.buffer.split(b"\0", 1)
                found = json.loads(line)
                if "method" in found:
                    self.events.append(found)
                if "error" in found:
                    raise AssertionError(found["error"])
                if wanted(found):
                    return found
            if not select.select([self.answers], [], [], max(0.0, end - time.monotonic()))[0]:
                raise TimeoutError(f"Chromium said nothing for {PATIENCE} s")
            more = os.read(self.answers, 1 << 20)
            if not more:
                raise ConnectionError("Chromium ended")
            self.buffer += more


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        opened = Browser(Path(profile))
        try:
            yield opened
        finally:
            opened.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory, write_run: Callable[..., Path]) -> dict[str, Path]:
    """Pages of three runs: with all evidence and few concepts, with 80 concepts, with hostile strings."""
    folder = tmp_path_factory.mktemp("pages")
    cap = ("TP9", "AF7", "AF8", "TP10", "POz")
    many = dict.fromkeys(("eeg", "shuffled", "mean", "oracle", "retrieval", "retrieved-start", "best-of"), 0.6)
    large = {"n_concepts": 80, "n_subjects": 16, "verdict": "block-confounded"}
    unread = finding("columns-unread", columns=HOSTILE)
    hostile = {"captions": {0: HOSTILE}, "findings": (unread,), "evidence": {"hostile": HOSTILE}}
    runs: dict[str, dict[str, Any]] = {
        "full": {"n_trials": 30, "evidence": {}}, "large": {"n_trials": 6, "levels": many, "evidence": large},
        "hostile": {"n_trials": 6, **hostile},
    }  # fmt: skip
    return {name: write_report(write_run(folder / name, ch_names=cap, **run)) for name, run in runs.items()}


def complaints(browser: Browser) -> list[str]:
    """What the console said, and what went wrong, since the page was opened."""
    names = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")
    return [json.dumps(event["params"])[:500] for event in browser.events if event["method"] in names]


def requests(browser: Browser) -> list[str]:
    """Addresses that were asked for since the page was opened, but for what the page itself holds."""
    asked = [event for event in browser.events if event["method"] == "Network.requestWillBeSent"]
    return [url for event in asked if not (url := event["params"]["request"]["url"]).startswith("data:")]


# Rows of tables in which the text of one cell lies over that of another.
OVERLAPS = """
[...document.querySelectorAll("tr")].flatMap((row) => {
  const boxes = [...row.cells].filter((cell) => cell.offsetWidth > 0 && !cell.matches(".plot")).map((cell) => {
    const range = document.createRange();
    range.selectNodeContents(cell);
    return range.getBoundingClientRect();
  }).filter((box) => box.width > 0);
  const meet = (a, b) => a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 1 && b.top < a.bottom - 1;
  return boxes.some((one, at) => boxes.slice(at + 1).some((other) => meet(one, other))) ? [row.textContent] : [];
})
"""


@SIZES
@pytest.mark.parametrize("name", ["full", "large", "hostile"])
def test_it_renders_without_error_or_request_and_nothing_is_cut_off(browser, pages, name, size):
    browser.open(pages[name], size)
    assert browser.ask("[...document.images].length") > 20
    assert browser.ask("[...document.images].filter((one) => !(one.naturalWidth > 0)).length") == 0
    assert browser.ask("[innerWidth, document.documentElement.scrollWidth]") == [size[0], size[0]]
    # long tables may scroll inside their panel; nothing else may stick out of the page
    outside = browser.ask(
        "[...document.querySelectorAll('main *')].filter((one) => !one.closest('.scroll, .matrix, svg') && "
        "one.getBoundingClientRect().right > innerWidth + 1).map((one) => one.outerHTML.slice(0, 99))"
    )
    assert outside == []
    assert browser.ask(OVERLAPS) == [] == complaints(browser)
    assert requests(browser) == [pages[name].as_uri()] and browser.ask("document.title") != "hacked"


def column(browser: Browser, table: str, number: int) -> list[str]:
    """Texts of a column, without rows that keep their place."""
    rows = f"[...document.querySelectorAll('{table} tbody tr:not(.fixed)')]"
    return browser.ask(f"{rows}.map((row) => row.cells[{number}].textContent.trim())")


def click(browser: Browser, selector: str) -> None:
    browser.ask(f"document.querySelector({json.dumps(selector)}).click()")


def test_tables_sort_by_number_and_by_name_and_turn_around(browser, pages) -> None:
    browser.open(pages["full"])
    given = column(browser, ".forest", 3)
    by_number = sorted(given, key=lambda text: float(text.split("\N{NO-BREAK SPACE}")[0]))
    assert given != by_number
    click(browser, ".forest thead th:nth-child(4) button")
    assert column(browser, ".forest", 3) == by_number
    heads = "[...document.querySelectorAll('.forest thead th')].map((head) => head.getAttribute('aria-sort'))"
    assert browser.ask(heads)[3] == "ascending" and browser.ask(heads).count(None) == 6
    click(browser, ".forest thead th:nth-child(4) button")
    assert column(browser, ".forest", 3) == by_number[::-1]
    assert browser.ask(heads)[3] == "descending"
    last = "[...document.querySelectorAll('.forest tbody tr')].slice(-2).map((row) => row.className)"
    assert browser.ask(last) == ["fixed pooled", "axis fixed"]
    click(browser, ".forest thead th:first-child button")
    assert column(browser, ".forest", 0) == [f"Subject {number}" for number in range(8)]


def shown(browser: Browser, selector: str) -> list[str]:
    """Classes of the elements that can be seen."""
    found = f"[...document.querySelectorAll('{selector}')].filter((one) => one.offsetWidth > 0)"
    return browser.ask(f"{found}.map((one) => one.className)")


@pytest.mark.parametrize("scripts", [True, False], ids=["scripts", "no scripts"])
@SIZES
def test_the_arm_switch_shows_one_arm_large_beside_the_seen_picture(browser, pages, size, scripts):
    browser.open(pages["full"], size, scripts=scripts)
    figures, width = ".trial:first-child figure", "document.querySelector('.trial .of.oracle img').offsetWidth"
    every = [f"of {arm}" for arm in ("seen", "eeg", "shuffled", "mean", "oracle")]
    assert shown(browser, figures)[:5] == every
    small = browser.ask(width)
    click(browser, ".pictures input[value=oracle]")
    assert shown(browser, figures)[:4] == ["of seen", "of oracle"] * 2
    assert browser.ask(width) > 2 * small
    click(browser, ".pictures input[value=all]")
    assert shown(browser, figures)[:5] == every
    browser.ask("document.querySelector('.pictures input[value=all]').focus()")
    browser.press("ArrowRight")
    assert shown(browser, figures)[:2] == ["of seen", "of eeg"]


@SIZES
def test_the_order_and_the_arm_of_the_confusion_matrix_switch(browser, pages, size):
    browser.open(pages["large"], size)
    assert shown(browser, ".drawn") == ["drawn of-eeg by-semantic"]
    click(browser, ".confusion input[value=block]")
    assert shown(browser, ".drawn") == ["drawn of-eeg by-block"]
    click(browser, ".confusion input[value=oracle]")
    assert shown(browser, ".drawn") == ["drawn of-oracle by-block"]
    width, height = browser.ask(
        "(() => { const b = document.querySelector('.by-block.of-oracle svg').getBoundingClientRect();"
        "return [b.width, b.height]; })()"
    )
    assert width == pytest.approx(height, rel=0.01) and width > 0.75 * min(size[0], 1040)


def test_without_scripts_everything_is_there(browser, pages) -> None:
    browser.open(pages["full"], scripts=False)
    assert browser.ask("document.querySelectorAll('thead button').length") == 0
    assert browser.ask("[...document.querySelectorAll('h2')].every((head) => head.offsetWidth > 0)")
    assert complaints(browser) == [] and requests(browser) == [pages["full"].as_uri()]
