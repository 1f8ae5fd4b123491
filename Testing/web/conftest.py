"""One Chromium for all tests of pages, without a network and without a graphics card; skipped in plain words where there is none."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from LesionLensApp.web.viewer import ViewerMissingError, niivue_path
from repository import ROOT

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
_AXE = ROOT / "node_modules" / "axe-core" / "axe.min.js"


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    try:
        from playwright.sync_api import sync_playwright

        niivue_path()
    except (ImportError, ViewerMissingError) as error:
        pytest.skip(f"No page can be tried here: {error}")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("No page can be tried here: Chromium is not installed (on Debian: apt-get install chromium).")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium, args=[*FLAGS])
        yield started
        started.close()


@pytest.fixture
def open_page(browser, tmp_path) -> Iterator[Callable[..., Any]]:
    """Open a file in a fresh profile with the network off. What the page asks the network for, or fails at, fails the test."""
    contexts, asked, failed = [], [], []

    def open_(path: Path, *, width: int = 1100, height: int = 800, context: Any = None) -> Any:
        if context is None:
            context = browser.new_context(
                viewport={"width": width, "height": height}, accept_downloads=True, offline=True
            )
            contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(30_000)
        page.on("pageerror", lambda error: failed.append(str(error)))
        page.on("console", lambda said: failed.append(said.text) if said.type == "error" else None)
        page.on("request", lambda request: asked.append(request.url))
        page.goto(path.as_uri())
        return page

    yield open_
    for context in contexts:
        context.close()
    assert failed == []
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []


@pytest.fixture
def accessibility() -> Callable[[Any], list[str]]:
    """What axe-core finds serious or critical in a page as it is now."""
    if not _AXE.is_file():
        pytest.skip("axe-core is not there: run npm ci.")

    def check(page: Any) -> list[str]:
        page.evaluate(_AXE.read_text(encoding="utf-8"))
        found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
        return [
            f"{one['id']}: {json.dumps([node['html'] for node in one['nodes']])[:300]}"
            for one in found["violations"]
            if one["impact"] in ("serious", "critical")
        ]

    return check
