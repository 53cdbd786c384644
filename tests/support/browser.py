"""Debian's Chromium without a window, and helpers to operate it."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

FLAGS = (
    "headless",
    "no-sandbox",
    "disable-gpu",
    "disable-quic",
    "no-first-run",
    "disable-background-networking",
    "disable-component-update",
    "disable-sync",
    "disable-dev-shm-usage",
    "window-size=1280,1000",
)


def open_browser(profile: Path) -> Iterator[Any]:
    """Start Chromium with a profile folder and stop it afterwards; skip if it is not installed."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed (pip install selenium)")
    from selenium.webdriver.chrome.service import Service

    program, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if program is None or driver is None:
        pytest.skip("no browser (Debian: apt-get install chromium chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for flag in FLAGS:
        options.add_argument(f"--{flag}")
    options.add_argument(f"--user-data-dir={profile}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    opened = webdriver.Chrome(options=options, service=Service(driver))
    yield opened
    opened.quit()


def all_of(tab, selector: str) -> list:
    return tab.find_elements("css selector", selector)


def one(tab, selector: str):
    return tab.find_element("css selector", selector)


def names(tab) -> list[str]:
    return tab.execute_script("return [...document.querySelectorAll('.open')].map((b) => b.firstChild.textContent)")


def wait(tab, condition) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(tab, 20).until(lambda _: condition())


def choose(tab, selector: str, value: str) -> None:
    from selenium.webdriver.support.ui import Select

    Select(one(tab, selector)).select_by_value(value)


def shown(panel: Any) -> float:
    """Return the percentage of the width that shows the noisy picture."""
    after = panel.find_element("css selector", ".compare img.after")
    return float(re.search(r"([\d.]+)%\)", after.value_of_css_property("clip-path"))[1])
