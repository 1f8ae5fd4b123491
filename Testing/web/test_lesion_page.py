"""The lesion page on a real server in a real browser: from the file to the answer, by mouse, by keys, at 400 pixels."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from LesionLib.geometry import CTVolume, LesionBox
from LesionLib.inference.messages import EmbeddingRequest, RunOptions
from LesionLib.inference.runner import WorkerRunner
from LesionLib.phantom.nodules import nodule_patch
from LesionRetrievalLib.library.cases import ModelIdentity
from LesionRetrievalLib.library.intake import write_library
from LesionRetrievalLib.library.phantoms import phantom_cases
from LesionRetrievalLib.library.pseudonyms import Pseudonymiser
from phantom_cases import write_volume
from PIL import Image

MODEL = "lung-nodule-malignancy"
HOSTILE = "<img src=x onerror=document.title='taken'>.nrrd"


@pytest.fixture(scope="module")
def nodule() -> tuple[CTVolume, LesionBox]:
    volume, truth = nodule_patch(kind="lobulated", diameter_mm=16.0, seed=3, size_mm=70.0)
    return volume, truth.box


@pytest.fixture(scope="module")
def served(browser, nodule, tmp_path_factory) -> Iterator[Any]:
    from served import serving  # late: it wants Starlette, and a browser is asked for first

    folder = tmp_path_factory.mktemp("served")
    write_volume(nodule[0].array, nodule[0].ijkToRAS, folder / "shelf" / "nodule.nrrd")
    worker, key = WorkerRunner(), Pseudonymiser.create(folder / "owner.key")
    model = worker.describe(MODEL, RunOptions(precision="float32"))

    def embed(volume: CTVolume, box: LesionBox) -> np.ndarray:
        return worker.run(EmbeddingRequest(str(model.folder), volume, box, query_only=True)).vector

    cases = islice(phantom_cases(embed, key, seed=0, with_patches=True), 9)
    write_library(folder / "cases.lesionlib", ModelIdentity.of_model(model), cases)
    options = {"folder": folder / "shelf", "library": folder / "cases.lesionlib", "key": folder / "owner.key"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CONFIG_HOME", str(folder / "config"))
        with serving(MODEL, runner=worker, **options) as running:
            yield running


@pytest.fixture
def visit(browser, served) -> Iterator[Callable[..., Any]]:
    """Open the page in a fresh profile that reaches this server alone. What the page fails at fails the test."""
    contexts, failed, asked = [], [], []

    def open_(address: str = served.address, *, width: int = 1280, height: int = 900) -> Any:
        context = browser.new_context(viewport={"width": width, "height": height}, accept_downloads=True)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(60_000)
        page.on("pageerror", lambda error: failed.append(str(error)))
        page.on("console", lambda said: failed.append(said.text) if said.type == "error" else None)
        page.on("request", lambda request: asked.append(request.url))
        page.goto(address)
        return page

    open_.address = served.address
    yield open_
    for context in contexts:
        context.close()
    assert [text for text in failed if "Failed to load resource" not in text] == []  # a refusal that the page shows
    assert [url for url in asked if not url.startswith((f"http://127.0.0.1:{served.port}/", "data:", "blob:"))] == []
    for name in list(served.service.sessions._sessions):
        served.service.sessions.end(name)


def opened(page: Any) -> Any:
    """The nodule of the server's folder, in the page."""
    page.get_by_role("button", name="nodule.nrrd").click()
    page.locator("#ask").wait_for()
    until(page, "lesionPage.viewer.hasVolume")
    return page


def until(page: Any, expression: str) -> None:
    """Wait until something is so; by calls from outside, for the page's policy lets no text become code in it."""
    end = time.monotonic() + 60
    while not page.evaluate(expression):
        assert time.monotonic() < end, expression
        page.wait_for_timeout(20)


def settled(page: Any) -> None:
    page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")


def drag(page: Any, plane: str, start: np.ndarray, end: np.ndarray) -> None:
    stage = page.locator(".stage")
    stage.scroll_into_view_if_needed()
    place = stage.bounding_box()
    for ras, act in ((start, page.mouse.down), (end, page.mouse.up)):
        settled(page)
        x, y = page.evaluate("([plane, ras]) => lesionPage.viewer.pixelOf(plane, ras)", [plane, list(map(float, ras))])
        page.mouse.move(place["x"] + x, place["y"] + y, steps=3)
        act()
    settled(page)


def with_box(page: Any, box: LesionBox) -> Any:
    """The nodule's box drawn by mouse: across on the axial plane, its depth on the coronal one."""
    page.evaluate("ras => lesionPage.viewer.goTo(ras)", box.centerRAS.tolist())
    page.get_by_role("button", name="Add a box").click()
    half = box.sizeMm / 2
    drag(page, "axial", box.centerRAS - half * [1, 1, 0], box.centerRAS + half * [1, 1, 0])
    drag(page, "coronal", box.centerRAS + [half[0] + 8, 0, -half[2]], box.centerRAS + [half[0] + 8, 0, half[2]])
    return page


def answered(page: Any) -> Any:
    page.get_by_role("button", name="Classify").click()
    page.locator("#answer").wait_for()
    until(page, "document.getElementById('state').textContent.startsWith('Answered')")
    return page


def picture(page: Any) -> np.ndarray:
    settled(page)
    return np.asarray(Image.open(io.BytesIO(page.locator(".stage").screenshot())).convert("RGB")).astype(int)


def saved(page: Any, name: str) -> bytes:
    with page.expect_download() as waiting:
        page.get_by_role("button", name=name, exact=True).click()
    return Path(waiting.value.path()).read_bytes()


def test_from_a_file_to_the_answer_with_its_map_and_similar_cases(visit, nodule, served, accessibility):
    page = with_box(opened(visit()), nodule[1])
    (box,) = page.evaluate("lesionPage.state.boxes")
    assert box["centerRAS"] == pytest.approx(nodule[1].centerRAS.tolist(), abs=1.25)
    assert box["sizeMm"] == pytest.approx(nodule[1].sizeMm.tolist(), abs=1.4)
    answered(page)
    (answer,) = page.evaluate("lesionPage.state.answer.lesions")
    text = page.locator("#lesion").inner_text()
    assert f"L1: {answer['label']}" in text
    assert f"{100 * max(answer['probabilities'].values()):.1f} %" in text
    assert "hold the true class" in text
    assert page.locator(".gallery img").count() == 9
    written = json.loads(saved(page, "results.json"))
    assert written["results"][0]["probabilities"] == {k: round(v, 6) for k, v in answer["probabilities"].items()}
    assert saved(page, "results.csv").decode().startswith("name,label,")
    assert saved(page, "Download the map (.nrrd)").startswith(b"NRRD")
    # The map lies over its lesion: there the picture has colour, far from it none.
    page.evaluate("ras => lesionPage.viewer.goTo(ras)", nodule[1].centerRAS.tolist())
    seen = picture(page)
    colour = seen.max(axis=2) - seen.min(axis=2)
    x, y = page.evaluate("ras => lesionPage.viewer.pixelOf('axial', ras)", nodule[1].centerRAS.tolist())
    far = (nodule[1].centerRAS + [0, -26, 0]).tolist()
    u, v = page.evaluate("ras => lesionPage.viewer.pixelOf('axial', ras)", far)
    assert colour[int(y) - 40 : int(y) + 40, int(x) - 40 : int(x) + 40].max() > 90
    assert colour[int(v) - 6 : int(v) + 6, int(u) + 10 : int(u) + 22].max() < 30
    assert accessibility(page) == []
    page.locator(".gallery button").first.click()
    assert page.locator("#beside").is_visible()
    assert "Both at the same scale" in page.locator("#beside").inner_text()
    assert accessibility(page) == []
    page.keyboard.press("Escape")
    assert not page.locator("#beside").is_visible()


def test_the_numbers_are_there_before_the_map(visit, nodule):
    page, held = with_box(opened(visit()), nodule[1]), []

    def hold(route: Any) -> None:
        held.append(route)

    page.route("**/map.nii", hold)
    answered(page)
    page.locator("#lesion .bars").wait_for()
    assert "%" in page.locator("#lesion").inner_text()
    assert len(held) == 1
    assert page.evaluate("lesionPage.viewer.overlay") is None
    held[0].continue_()
    until(page, "lesionPage.viewer.overlay !== null")


def test_the_token_is_taken_out_of_the_address_and_a_reload_goes_on_where_it_was(visit, nodule):
    page = answered(with_box(opened(visit()), nodule[1]))
    assert "token" not in page.url
    page.reload()
    page.locator("#answer").wait_for()
    assert page.evaluate("lesionPage.state.boxes.length") == 1
    with page.expect_navigation():
        page.get_by_role("button", name="End and delete").click()
    until(page, "globalThis.lesionPage && !lesionPage.viewer.hasVolume")
    assert "None is open" in page.locator("#ct").inner_text()


def test_all_of_it_by_keys_alone(visit, nodule):
    page = visit()
    page.get_by_role("button", name="nodule.nrrd").wait_for()
    tab_to(page, "nodule.nrrd")
    page.keyboard.press("Enter")
    until(page, "globalThis.lesionPage && lesionPage.viewer.hasVolume")
    tab_to(page, "Add a box")
    page.keyboard.press("Enter")
    page.keyboard.press("b")
    page.keyboard.press("Shift+ArrowUp")
    page.keyboard.press("Alt+ArrowRight")
    page.keyboard.press("]")
    (box,) = page.evaluate("lesionPage.state.boxes")
    assert box["sizeMm"][1] > 20
    tab_to(page, "Classify")
    page.keyboard.press("Enter")
    page.locator("#answer").wait_for()
    tab_to(page, "side by side")
    page.keyboard.press("Enter")
    assert page.locator("#beside").is_visible()
    page.keyboard.press("Escape")


def tab_to(page: Any, text: str) -> None:
    for _ in range(80):
        page.keyboard.press("Tab")
        now = page.evaluate(
            "(at => at === document.body ? '' : at.getAttribute('aria-label') || at.textContent)(document.activeElement)"
        )
        if text in now:
            return
    msg = f"the keyboard does not reach {text!r}"
    raise AssertionError(msg)


def test_at_400_pixels_nothing_is_cut_off(visit, nodule, accessibility):
    page = opened(visit(width=400, height=800))
    page.evaluate("ras => lesionPage.viewer.goTo(ras)", nodule[1].centerRAS.tolist())
    page.get_by_role("button", name="Add a box").click()
    page.keyboard.press("b")
    answered(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    assert accessibility(page) == []


def test_a_wrong_token_is_said_and_nothing_else_is_shown(visit, served):
    page = visit(f"http://127.0.0.1:{served.port}/#token=wrong")
    page.locator("#problem").wait_for()
    assert "open the whole address" in page.locator("#problem").inner_text()
    assert not page.locator("#ask").is_visible()


def test_a_dropped_file_of_a_hostile_name_is_text_and_nothing_more(visit, nodule, tmp_path):
    written = write_volume(nodule[0].array, nodule[0].ijkToRAS, tmp_path / "ct.nrrd")
    page = visit()
    page.locator("#pick").set_input_files({"name": HOSTILE, "mimeType": "", "buffer": written.read_bytes()})
    until(page, "globalThis.lesionPage && lesionPage.viewer.hasVolume")
    assert HOSTILE in page.locator("#ct").inner_text()
    page.evaluate("lesionPage.state.boxes")
    assert page.locator("#side img").count() == 0
    assert page.title() == "LesionLens"
    page.locator("#pick").set_input_files({"name": "notes.nrrd", "mimeType": "", "buffer": b"no image"})
    page.locator("#problem").wait_for()
    assert "notes.nrrd cannot be read as an image" in page.locator("#problem").inner_text()


def test_a_file_that_is_chosen_before_the_page_is_ready_is_opened_when_it_is(visit, nodule, tmp_path):
    written = write_volume(nodule[0].array, nodule[0].ijkToRAS, tmp_path / "ct.nrrd")
    page = visit("about:blank")
    page.route("**/api/sessions", lambda route: (time.sleep(1), route.continue_()))  # the session is made late
    page.goto(visit.address)
    page.locator("#pick").set_input_files({"name": "ct.nrrd", "mimeType": "", "buffer": written.read_bytes()})
    until(page, "globalThis.lesionPage && lesionPage.viewer.hasVolume")
    assert page.locator("#problem").is_hidden()


def test_boxes_are_saved_and_come_back(visit, nodule, tmp_path):
    page = with_box(opened(visit()), nodule[1])
    page.get_by_label("Name").fill("left lobe")
    page.get_by_label("Name").press("Tab")
    before = page.evaluate("lesionPage.state.boxes")
    content = saved(page, "Save .mrk.json")
    assert json.loads(content)["markups"][0]["name"] == "left lobe"
    page.get_by_role("button", name="Remove").click()
    assert page.evaluate("lesionPage.state.boxes") == []
    page.locator("#load").set_input_files({"name": "b.mrk.json", "mimeType": "", "buffer": content})
    until(page, "lesionPage.state.boxes.length === 1")
    (box,) = page.evaluate("lesionPage.state.boxes")
    assert box["name"] == "left lobe"
    assert box["centerRAS"] == pytest.approx(before[0]["centerRAS"], abs=1e-9)


def test_a_worker_that_is_killed_in_the_middle_is_said_and_the_next_answer_comes(visit, nodule, served):
    page = with_box(opened(visit()), nodule[1])
    many = [{**page.evaluate("lesionPage.state.boxes[0]"), "name": f"L{n}"} for n in range(40)]
    page.evaluate("boxes => { lesionPage.state.boxes = boxes }", many)
    page.get_by_label("Name").fill("L99")
    page.get_by_label("Name").press("Tab")
    page.get_by_label("ask 8 boxes").check()
    page.get_by_role("button", name="Classify").click()
    page.get_by_role("button", name="Cancel").wait_for()
    until(page, "document.getElementById('state').textContent.startsWith('Lesion')")
    served.service.queue.runners[0]._process.kill()
    page.locator("#problem").wait_for()
    assert "stopped in the middle" in page.locator("#problem").inner_text()
    page.get_by_role("button", name="Classify").click()
    until(page, "document.getElementById('state').textContent.startsWith('Lesion')")
    page.get_by_role("button", name="Cancel").click()
    until(page, "document.getElementById('state').textContent === 'Cancelled.'")
