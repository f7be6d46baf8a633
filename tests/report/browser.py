"""The system's Chromium, driven by playwright; nothing is downloaded."""

import contextlib
import shutil
from importlib.util import find_spec

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking"]


def why_not():
    """Return why no browser can be driven here; an empty string where one can."""
    if find_spec("playwright") is None:
        return "playwright is not installed: python -m pip install -c constraints.txt '.[browser]'"
    if program() is None:
        return "there is no Chromium on this machine; on Debian: apt install chromium"
    return ""


def program():
    return next((path for path in map(shutil.which, PROGRAMS) if path), None)


@contextlib.contextmanager
def chromium():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program(), args=FLAGS)
        try:
            yield browser
        finally:
            browser.close()
