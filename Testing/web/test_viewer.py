"""The viewer in a real browser: slices, windows, a map over its lesion, boxes drawn by mouse and by keys."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from LesionLensApp.web.viewer import niivue_script, viewer_script, viewer_style, viewer_windows
from LesionLib.geometry import CTVolume
from PIL import Image

# The bright block lies off the middle along every axis, so that no mirrored picture passes for the right one.
SIZE = (40, 36, 30)  # i, j, k
SPACING = (0.8, 0.9, 1.5)
BLOCK = ((26, 32), (8, 14), (18, 24))  # first voxel and the one behind the last, along i, j, k


def block_volume(*, lps: bool) -> CTVolume:
    """Air with a block of soft tissue; on an LPS lattice, as DICOM has it, or on an RAS one."""
    array = np.full(SIZE[::-1], -1000, np.int16)
    array[tuple(slice(*ends) for ends in BLOCK[::-1])] = 100
    sign = (-1, -1, 1) if lps else (1, 1, 1)
    to_ras = np.diag([*(s * mm for s, mm in zip(sign, SPACING, strict=True)), 1.0])
    to_ras[:3, 3] = (12.0, -7.0, 100.0)
    return CTVolume(array, to_ras, name="block")


def block_center(volume: CTVolume) -> np.ndarray:
    ijk = np.array([(first + behind - 1) / 2 for first, behind in BLOCK])
    return (volume.ijkToRAS @ [*ijk, 1])[:3]


def written(array: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()


POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"
PAGE = f"""<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Slices</title>
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<style>{viewer_style()} body {{ margin: 0 }} .stage {{ height: 540px }}</style></head>
<body><main><h1>Slices</h1><div id="place"></div></main>
<script>NIIVUE</script><script>{viewer_script()}</script><script>
const windows = {json.dumps(viewer_windows())};
const bytes = (text, Type) => new Type(Uint8Array.from(atob(text), c => c.charCodeAt(0)).buffer);
const show = async (shown, hu, map) => {{
  globalThis.viewer ||= await LesionViewer.create(document.getElementById("place"), {{windows, measure: true}});
  viewer.setPlanes("all");
  await viewer.showVolume({{data: bytes(hu, Int16Array), windowHU: [-160, 240], ...shown}});
  if (map) await viewer.showOverlay({{data: bytes(map, Uint8Array), opacity: 0.8, ...shown}});
}};
</script></body></html>"""


@pytest.fixture(scope="module")
def opened(browser, tmp_path_factory) -> Iterator[Any]:
    """One page for all tests here: a viewer shows one CT after another."""
    path = tmp_path_factory.mktemp("viewer") / "viewer.html"
    path.write_text(PAGE.replace("NIIVUE", niivue_script(), 1), encoding="utf-8")
    context = browser.new_context(offline=True)
    page = context.new_page()
    page.set_default_timeout(60_000)
    failed: list[str] = []
    page.on("pageerror", lambda error: failed.append(str(error)))
    page.on("console", lambda said: failed.append(said.text) if said.type == "error" else None)
    page.goto(path.as_uri())
    yield page
    context.close()
    assert failed == []


@pytest.fixture
def viewer(opened) -> Callable[..., Any]:
    def show(volume: CTVolume, map_: np.ndarray | None = None, *, width: int = 1100, height: int = 720) -> Any:
        opened.set_viewport_size({"width": width, "height": height})
        shown = {"dims": list(volume.sizeIJK), "ijkToRAS": volume.ijkToRAS.tolist()}
        packed = None if map_ is None else written(map_)
        opened.evaluate("([shown, hu, map]) => show(shown, hu, map)", [shown, written(volume.array), packed])
        return opened

    return show


def settled(page: Any) -> None:
    page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")


def picture(page: Any) -> np.ndarray:
    """The stage as it is seen: (y, x, RGB)."""
    settled(page)
    png = page.locator(".stage").screenshot()
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


def pixel(page: Any, plane: str, ras: np.ndarray) -> tuple[float, float]:
    settled(page)
    return tuple(page.evaluate("([plane, ras]) => viewer.pixelOf(plane, ras)", [plane, list(map(float, ras))]))


def drag(page: Any, plane: str, start: np.ndarray, end: np.ndarray) -> None:
    place = page.locator(".stage").bounding_box()
    for ras, act in ((start, page.mouse.down), (end, page.mouse.up)):
        x, y = pixel(page, plane, ras)
        page.mouse.move(place["x"] + x, place["y"] + y, steps=3)
        act()
    settled(page)


@pytest.mark.parametrize("lps", [True, False])
def test_the_block_is_painted_where_its_ras_place_is_in_every_plane(viewer, lps):
    volume = block_volume(lps=lps)
    page = viewer(volume)
    center = block_center(volume)
    page.evaluate("ras => viewer.goTo(ras)", center.tolist())
    seen = picture(page)
    for plane in ("axial", "coronal", "sagittal"):
        x, y = pixel(page, plane, center)
        assert seen[int(y) + 4, int(x) + 4].min() > 120, plane  # beside the lines of the crosshair
        other = center + 2 * (volume.ijkToRAS @ [*(np.array(SIZE) / 2), 1])[:3] - 2 * center  # mirrored at the middle
        x, y = pixel(page, plane, other)
        assert seen[int(y) + 4, int(x) + 4].max() < 40, plane


def test_the_patient_s_right_is_on_the_left_and_anterior_on_top(viewer):
    page = viewer(block_volume(lps=True))
    center = page.evaluate("viewer.positionRAS")
    right, anterior = np.add(center, [5, 0, 0]), np.add(center, [0, 5, 0])  # +x is right, +y anterior
    x, y = pixel(page, "axial", center)
    assert pixel(page, "axial", right)[0] < x
    assert pixel(page, "axial", anterior)[1] < y


def test_a_box_drawn_on_two_planes_is_where_it_was_drawn_within_a_voxel(viewer):
    volume = block_volume(lps=True)
    page = viewer(volume)
    center = block_center(volume)
    page.evaluate("ras => { viewer.goTo(ras); viewer.startDrawing() }", center.tolist())
    drag(page, "axial", center - [4, 5, 0], center + [4, 5, 0])
    drag(page, "coronal", center + [12, 0, -6], center + [12, 0, 6])
    box = page.evaluate("viewer.drawnBox")
    assert box["centerRAS"] == pytest.approx(center, abs=0.8)
    assert box["sizeMm"] == pytest.approx([8, 10, 12], abs=0.8)


def test_a_handle_pulls_one_side_and_the_inside_moves_the_box(viewer):
    volume = block_volume(lps=True)
    page = viewer(volume)
    center = block_center(volume)
    box = {"centerRAS": center.tolist(), "sizeMm": [8, 8, 8]}
    page.evaluate("box => { viewer.goTo(box.centerRAS); viewer.startDrawing(box) }", box)
    drag(page, "axial", center + [4, 0, 0], center + [7, 0, 0])
    pulled = page.evaluate("viewer.drawnBox")
    assert pulled["sizeMm"] == pytest.approx([11, 8, 8], abs=0.5)
    assert pulled["centerRAS"] == pytest.approx(center + [1.5, 0, 0], abs=0.5)
    drag(page, "sagittal", center + [1.5, 0, 0], center + [1.5, -3, 2])
    moved = page.evaluate("viewer.drawnBox")
    assert moved["centerRAS"] == pytest.approx(center + [1.5, -3, 2], abs=0.5)
    assert moved["sizeMm"] == pulled["sizeMm"]


def test_a_box_is_placed_moved_and_sized_by_keys_alone(viewer):
    page = viewer(block_volume(lps=True))
    page.evaluate("viewer.startDrawing()")
    page.locator(".stage").focus()
    for key in ("ArrowUp", "ArrowUp", "b", "Alt+ArrowUp", "Shift+ArrowRight", "["):
        page.keyboard.press(key)
    settled(page)
    box, at = page.evaluate("[viewer.drawnBox, viewer.positionRAS]")
    assert box["centerRAS"] == pytest.approx([at[0], at[1] + 0.9, at[2]], abs=1e-3)
    assert box["sizeMm"] == pytest.approx([20 + 1.6, 20, 20 - 3.0], abs=1e-3)


def test_the_map_lies_over_its_lesion_by_pixels(viewer):
    volume = block_volume(lps=True)
    map_ = np.zeros(volume.array.shape, np.uint8)
    map_[tuple(slice(*ends) for ends in BLOCK[::-1])] = 200
    page = viewer(volume, map_)
    page.evaluate("ras => viewer.goTo(ras)", block_center(volume).tolist())
    seen = picture(page)
    page.evaluate("viewer.setOverlay({shown: false})")
    colour = np.abs(seen - picture(page)).max(axis=2) > 30
    left, top = pixel(page, "axial", block_center(volume) + [-3, 3, 0])
    right, bottom = pixel(page, "axial", block_center(volume) + [3, -3, 0])
    axial = page.evaluate("viewer._tiles()[0]")
    ys, xs = np.nonzero(colour[:, : int(axial["left"] + axial["width"])])
    x, y = pixel(page, "axial", block_center(volume))
    per_mm = abs(right - left) / 6
    assert (xs.mean(), ys.mean()) == pytest.approx((x, y), abs=1.5 * per_mm)
    assert len(xs) == pytest.approx(6 * 0.8 * 6 * 0.9 * per_mm * abs(bottom - top) / 6, rel=0.35)


def test_wheel_slider_and_keys_go_through_the_slices_and_a_preset_changes_the_window(viewer):
    page = viewer(block_volume(lps=True))
    text = page.locator(".slice-text")
    settled(page)
    assert text.inner_text() == "axial 16 of 30"
    place = page.locator(".stage").bounding_box()
    x, y = pixel(page, "axial", page.evaluate("viewer.positionRAS"))
    page.mouse.move(place["x"] + x + 5, place["y"] + y + 5)
    page.mouse.wheel(0, -100)
    settled(page)
    page.locator(".stage").focus()
    page.keyboard.press("PageUp")
    settled(page)
    assert text.inner_text() == "axial 22 of 30"
    page.get_by_label("Window", exact=True).select_option("lung")
    assert page.evaluate("viewer.windowHU") == [-1350, 150]


def test_at_400_pixels_one_plane_fills_the_width_and_nothing_sticks_out(viewer, accessibility):
    page = viewer(block_volume(lps=True), width=400)
    settled(page)
    assert page.evaluate("viewer._tiles().length") == 1
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    assert accessibility(page) == []


def test_a_measured_distance_is_that_of_the_lattice(viewer):
    volume = block_volume(lps=True)
    page = viewer(volume)
    center = page.evaluate("viewer.positionRAS")
    page.get_by_label("Measure a distance").click()
    page.evaluate("viewer.addEventListener('measured', event => { globalThis.measured = event.detail })")
    drag(page, "axial", center, np.add(center, [6, 8, 0]))
    assert page.evaluate("measured.mm") == pytest.approx(10, abs=0.5)
