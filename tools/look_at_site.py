"""Looks at out/site, which `make docs` builds, in a real browser: every page at the width of a telephone and of a desk.

python tools/look_at_site.py              # what overflows, what is asked of elsewhere, whether the search finds
python tools/look_at_site.py shots deva   # and pictures of pages, in both themes, into a folder
"""

from __future__ import annotations

import functools
import http.server
import json
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By

SITE = Path(__file__).resolve().parent.parent / "out" / "site"
WIDTHS = 390, 1280
TALLEST = 2600  # pixels of a picture


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    """Serves files and says nothing."""

    def log_message(self, format: str, *words: Any) -> None:
        """Nothing."""


def serve_site() -> str:
    """Serves the site from a thread; its address."""
    handler = functools.partial(QuietHandler, directory=str(SITE))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_address[1]}"


def open_browser() -> webdriver.Chrome:
    """A headless Chromium that notes what it asks for."""
    options = webdriver.ChromeOptions()
    for word in ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"):
        options.add_argument(word)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    return webdriver.Chrome(options=options, service=Service("/usr/bin/chromedriver"))


def set_view(browser: webdriver.Chrome, width: int, height: int = 900, theme: str = "light") -> None:
    """The size of the window and the theme that the reader prefers."""
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    media = [{"name": "prefers-color-scheme", "value": theme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": media})


def find_faults(browser: webdriver.Chrome, home: str) -> Iterator[str]:
    """What is wider than the window, and images that are not there."""
    for width in WIDTHS:
        set_view(browser, width)
        for page in sorted(p.relative_to(SITE).as_posix() for p in SITE.rglob("*.html")):
            browser.get(f"{home}/{page}")
            over = browser.execute_script("return document.documentElement.scrollWidth - window.innerWidth")
            lost = browser.execute_script(
                "return [...document.images].filter(i => i.complete && !i.naturalWidth).map(i => i.src)"
            )
            yield from [f"{page} at {width}: {over} pixels too wide"] * (over > 0)
            yield from (f"{page}: no image {one}" for one in lost)


def count_search_results(browser: webdriver.Chrome, home: str, word: str = "consensus") -> int:
    """How many pages the search finds for a word."""
    browser.get(f"{home}/index.html")
    browser.execute_script("document.querySelector('[data-md-toggle=search]').click()")
    time.sleep(0.5)
    browser.find_element(By.CSS_SELECTOR, "input.md-search__input").send_keys(word)
    for _ in range(60):
        time.sleep(0.25)
        found = browser.find_elements(By.CSS_SELECTOR, ".md-search-result__link")
        if found:
            return len(found)
    return 0


def list_foreign_requests(browser: webdriver.Chrome, home: str) -> list[str]:
    """Addresses elsewhere that were asked for."""
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = {e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"}
    return sorted(url for url in asked if not url.startswith((home, "data:", "blob:")))


def take_pictures(browser: webdriver.Chrome, home: str, folder: Path, pages: Sequence[str]) -> None:
    """Pictures of pages at both widths in both themes."""
    folder.mkdir(exist_ok=True)
    for page in pages:
        for width in WIDTHS:
            for theme in ("light", "dark"):
                set_view(browser, width, theme=theme)
                browser.get(f"{home}/{page}.html")
                tall = browser.execute_script("return document.documentElement.scrollHeight")
                set_view(browser, width, min(tall, TALLEST), theme)
                time.sleep(0.4)
                browser.save_screenshot(str(folder / f"{page.replace('/', '_')}-{width}-{theme}.png"))


def main(words: Sequence[str]) -> None:
    """Says what is wrong, and ends with 1 where something is."""
    home, browser = serve_site(), open_browser()
    try:
        faults = list(find_faults(browser, home))
        if not count_search_results(browser, home):
            faults.append("the search finds nothing")
        if words:
            take_pictures(browser, home, Path(words[0]), words[1:])
        faults += [f"asked elsewhere: {url}" for url in list_foreign_requests(browser, home)]
        faults += [entry["message"] for entry in browser.get_log("browser")]
    finally:
        browser.quit()
    print("\n".join(faults) or "nothing is wrong")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main(sys.argv[1:])
