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


def test_a_map_on_a_lattice_of_its_own_lies_where_that_lattice_says(viewer):
    volume, center = block_volume(lps=True), block_center(block_volume(lps=True))
    page = viewer(volume)
    map_to_ras = np.diag([1.0, 1.0, 1.0, 1.0])  # RAS and cropped, while the CT is LPS and whole
    map_to_ras[:3, 3] = center - [2.5, 2.5, 2.5]
    lattice = {"dims": [6, 6, 6], "ijkToRAS": map_to_ras.tolist()}
    page.evaluate(
        "([map, hot]) => viewer.showOverlay({...map, data: bytes(hot, Uint8Array), opacity: 1})",
        [lattice, written(np.full((6, 6, 6), 200, np.uint8))],
    )
    page.evaluate("ras => viewer.goTo(ras)", center.tolist())
    seen = picture(page)
    page.evaluate("viewer.setOverlay({shown: false})")
    colour = np.abs(seen - picture(page)).max(axis=2) > 30
    for plane, tile in zip(("axial", "coronal", "sagittal"), page.evaluate("viewer._tiles()"), strict=True):
        left, top, right, bottom = (
            int(each)
            for each in (tile["left"], tile["top"], tile["left"] + tile["width"], tile["top"] + tile["height"])
        )
        ys, xs = np.nonzero(colour[top:bottom, left:right])
        per_mm = tile["width"] / abs(tile["size"][0])
        assert (left + xs.mean(), top + ys.mean()) == pytest.approx(pixel(page, plane, center), abs=per_mm), plane
        assert np.ptp(xs) == pytest.approx(6 * per_mm, abs=1.5 * per_mm), plane


def test_a_tilted_lattice_is_painted_where_its_ras_place_is(viewer):
    volume = block_volume(lps=True)
    turned = np.deg2rad(15)
    tilt = np.eye(4)
    tilt[1:3, 1:3] = [[np.cos(turned), -np.sin(turned)], [np.sin(turned), np.cos(turned)]]
    tilted = CTVolume(volume.array, tilt @ volume.ijkToRAS, name="tilted")
    page, center = viewer(tilted), block_center(tilted)
    page.evaluate("ras => viewer.goTo(ras)", center.tolist())
    x, y = pixel(page, "sagittal", center)
    seen = picture(page)
    assert seen[int(y) + 3, int(x) + 3].min() > 120
    assert seen[int(y) + 60, int(x) + 60].max() < 40


def test_a_map_its_opacity_and_a_window_send_no_voxel_of_the_ct_again(viewer):
    volume = block_volume(lps=True)
    page = viewer(volume)
    settled(page)
    page.evaluate(
        """() => {
        const gl = viewer._nv.gl;
        globalThis.sent = {voxels: 0, passes: 0};
        for (const name of ["texSubImage3D", "texImage3D"]) {
            const real = gl[name];
            gl[name] = (...given) => {
                const [w, h, d] = name === "texImage3D" ? given.slice(3, 6) : given.slice(5, 8);
                sent.voxels += w * h * d;
                return real.apply(gl, given);
            };
        }
        const real = gl.framebufferTextureLayer;  // each is a slice that is computed anew
        gl.framebufferTextureLayer = (...given) => { sent.passes += 1; return real.apply(gl, given); };
    }"""
    )
    lattice = {"dims": [4, 4, 4], "ijkToRAS": volume.ijkToRAS.tolist()}
    show = "([map, hot]) => viewer.showOverlay({...map, data: bytes(hot, Uint8Array)})"
    page.evaluate(show, [lattice, written(np.full((4, 4, 4), 200, np.uint8))])
    for change in (
        "setOverlay({opacity: 0.9})",
        "setOverlay({shown: false})",
        "setWindow([-1350, 150])",
        "goTo([0, 0, 110])",
    ):
        page.evaluate(f"viewer.{change}")
        settled(page)
    assert page.evaluate("sent") == {"voxels": 4**3, "passes": 0}


def test_a_ct_that_the_browser_cannot_hold_is_said(viewer):
    page = viewer(block_volume(lps=True))
    said = page.evaluate(
        """async () => {
        const most = viewer._nv.gl.getParameter(viewer._nv.gl.MAX_3D_TEXTURE_SIZE);
        const ct = {data: new Int16Array(most + 1), dims: [1, 1, most + 1], ijkToRAS: [[1,0,0,0],[0,1,0,0],[0,0,1,0],[0,0,0,1]]};
        return viewer.showVolume(ct).then(() => "", (error) => error.message);
    }"""
    )
    assert "crop it first" in said
    assert page.evaluate("viewer.hasVolume") is False


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
    planes = page.get_by_label("Planes", exact=True)
    assert planes.evaluate("select => select.selectedOptions[0].textContent") == "axial"
    page.locator(".stage").focus()
    page.keyboard.press("ArrowRight")
    settled(page)
    assert planes.evaluate("select => select.selectedOptions[0].textContent") == "coronal"
    assert page.locator(".slice-text").inner_text().startswith("coronal")
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
