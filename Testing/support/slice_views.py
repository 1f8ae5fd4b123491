"""Pictures of the scene by Slicer's own slice views, drawn without a window.

Each view is what Slicer puts behind a slice widget: a slice logic that reslices and blends the volumes, and
displayable managers that draw the markups over them.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager

import numpy as np
import slicer
import vtk
from LesionClassifierLib.headless import HeadlessSlicer
from LesionClassifierLib.scene.volumes import nodesOfClass
from LesionLensApp.slice_nodes import LAYOUT_NAMES, placeSlice, releaseSliceLogic, sliceLogic
from LesionLib.errors import LesionLensError
from slicer import vtkMRMLMarkupsROINode, vtkMRMLNode, vtkMRMLScalarVolumeNode, vtkMRMLSliceNode
from vtk.util.numpy_support import vtk_to_numpy

_DISPLAYABLE_MANAGERS = ("vtkMRMLMarkupsDisplayableManager", "vtkMRMLRulerDisplayableManager")


class NoOpenGLError(LesionLensError):
    """There is nothing to draw with on this machine."""


class SliceRenderer:
    """Draws slices of a scene. Its three views are made when first needed and used again.

    ``size``: width and height of the pictures in pixels. Close it, or use it in a ``with`` statement; what is left
    open is closed before the scene goes. Raises `NoOpenGLError` where nothing can be drawn.
    """

    def __init__(self, headless: HeadlessSlicer, size: tuple[int, int] = (320, 320)) -> None:
        _windowFor(headless, size)
        self._headless = headless
        self._size = size
        self._views: dict[str, SliceView] = {}
        headless.callBeforeStop(self.close)

    def render(
        self,
        orientation: str,
        *,
        centerRAS: np.ndarray,
        fieldOfViewMm: float,
        volumeNode: vtkMRMLScalarVolumeNode,
        heatMapNode: vtkMRMLScalarVolumeNode | None = None,
        opacity: float = 0.5,
        visibleRois: Collection[vtkMRMLMarkupsROINode] | None = None,
        names: bool = False,
        ruler: bool = True,
        window: tuple[float, float] | None = None,
    ) -> np.ndarray:
        """One slice as uint8 pixels (height, width, RGB), top row first.

        ``orientation``: "Axial", "Sagittal" or "Coronal", shown as in Slicer: the patient's left on the right of an
        axial picture, anterior on top. ``centerRAS``: RAS mm of the picture's centre. ``fieldOfViewMm``: what the
        shorter side of the picture shows. ``visibleRois``: draw these boxes only; None draws what the scene shows.
        ``names``: write their names too, which Slicer puts over the middle of the lesion. ``ruler``: a scale bar.
        ``window``: width and level in HU; None is what the volume's display node says.
        Afterwards the scene looks as before; only the place of the view has changed.
        """
        view = self.view(orientation)
        view.place(centerRAS, fieldOfViewMm)
        rois = nodesOfClass(self._headless.scene, "vtkMRMLMarkupsROINode")
        with ExitStack() as afterwards:
            view.showLayers(afterwards, volumeNode, heatMapNode, opacity)
            view.showRuler(afterwards, ruler)
            if window is not None:
                _showWindow(afterwards, volumeNode, *window)
            _showRois(afterwards, rois, visibleRois, names)
            return view.grab()

    @contextmanager
    def hiddenRois(self) -> Iterator[None]:
        """Hide all boxes meanwhile: of many boxes each picture then shows its own, instead of hiding all others once more."""
        with ExitStack() as afterwards:
            _showRois(afterwards, nodesOfClass(self._headless.scene, "vtkMRMLMarkupsROINode"), (), False)
            yield

    def edges(self, orientation: str) -> tuple[str, str, str, str]:
        """Where the patient's sides are in the picture that was drawn last: letters at its left, right, top and bottom."""
        toRAS = slicer.util.arrayFromVTKMatrix(self.view(orientation).sliceNode.GetSliceToRAS())
        right, top = (_letter(toRAS[:3, axis]) for axis in (0, 1))
        return _OPPOSITE[right], right, top, _OPPOSITE[top]

    def view(self, orientation: str) -> SliceView:
        """The view of one orientation, made when first asked for."""
        if orientation not in LAYOUT_NAMES:
            msg = f"orientation is {orientation!r}; it must be one of {', '.join(LAYOUT_NAMES)}."
            raise ValueError(msg)
        if orientation not in self._views:
            self._views[orientation] = SliceView(self._headless, orientation, self._size)
        return self._views[orientation]

    def close(self) -> None:
        """Release the views and what they hold on the graphics side. The scene keeps its slice nodes."""
        for view in self._views.values():
            view.close()
        self._views.clear()
        self._headless.forget(self.close)

    def __enter__(self) -> SliceRenderer:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()


class SliceView:
    """One slice view of the scene: slice node, slice logic, displayable managers and two layers of an off-screen window.

    ``layoutName``: which; None is Slicer's own for the orientation. `grab` draws what the view shows now.
    """

    def __init__(
        self, headless: HeadlessSlicer, orientation: str, size: tuple[int, int], *, layoutName: str | None = None
    ) -> None:
        self._headless = headless
        self._orientation = orientation
        self._size = size
        self._window = _windowFor(headless, size)
        self._imageRenderer, self._markupsRenderer = self._layers = _twoLayers(self._window)
        self._imageMapper, self._imageActor = _imageActor()
        self._imageRenderer.AddViewProp(self._imageActor)
        self._logic = sliceLogic(headless, layoutName or LAYOUT_NAMES[orientation])
        self._managers = _displayableManagers(headless, self._markupsRenderer, self.sliceNode)

    @property
    def sliceNode(self) -> vtkMRMLSliceNode:
        """Where the slice lies (`GetXYToRAS`: pixels, counted from the lower left, to RAS mm)."""
        return self._logic.GetSliceNode()

    def place(self, centerRAS: np.ndarray, fieldOfViewMm: float) -> None:
        """Put ``centerRAS`` (RAS mm) in the middle; the shorter side shows ``fieldOfViewMm``."""
        placeSlice(self.sliceNode, self._orientation, self._size, centerRAS, fieldOfViewMm)

    def showLayers(
        self,
        afterwards: ExitStack,
        background: vtkMRMLScalarVolumeNode,
        foreground: vtkMRMLScalarVolumeNode | None,
        opacity: float,
    ) -> None:
        """Show ``foreground`` (None: nothing) over ``background`` until ``afterwards`` ends."""
        composite = self._logic.GetSliceCompositeNode()
        _set(afterwards, composite, "BackgroundVolumeID", background.GetID())
        _set(
            afterwards,
            composite,
            "ForegroundVolumeID",
            foreground.GetID() if foreground is not None else None,
        )
        _set(afterwards, composite, "ForegroundOpacity", opacity)

    def showRuler(self, afterwards: ExitStack, shown: bool) -> None:
        """Show a scale bar, or none, until ``afterwards`` ends."""
        node = self.sliceNode
        _set(afterwards, node, "RulerType", node.RulerTypeThin if shown else node.RulerTypeNone)
        if shown:
            _set(afterwards, node, "RulerColor", node.RulerColorYellow)

    def grab(self) -> np.ndarray:
        """Draw, and return the pixels (height, width, 3), top row first."""
        image = self._logic.GetImageDataConnection()
        self._imageMapper.SetInputConnection(image)
        self._imageActor.SetVisibility(image is not None)
        for layer in self._layers:
            layer.DrawOn()
        self._window.Render()
        grabber = vtk.vtkWindowToImageFilter()
        grabber.SetInput(self._window)
        grabber.ReadFrontBufferOff()
        grabber.ShouldRerenderOff()  # it was just drawn
        grabber.Update()
        for layer in self._layers:
            layer.DrawOff()
        width, height = self._size
        pixels = vtk_to_numpy(grabber.GetOutput().GetPointData().GetScalars())
        # VTK counts rows from below.
        return pixels.reshape(height, width, 3)[::-1].copy()

    def close(self) -> None:
        """Take everything apart in the order in which it holds on to each other."""
        self._managers.SetMRMLDisplayableNode(None)
        self._managers = None
        self._imageMapper.RemoveAllInputs()
        releaseSliceLogic(self._headless, self._logic)
        self._logic = None
        for layer in self._layers:
            self._window.RemoveRenderer(layer)


def _requireOpenGL() -> None:
    if sys.platform.startswith("linux") and not os.environ.get("DISPLAY"):
        # Without this, VTK tries X first and complains.
        os.environ.setdefault("VTK_DEFAULT_OPENGL_WINDOW", "vtkEGLRenderWindow")
    window = vtk.vtkRenderWindow()
    window.SetOffScreenRendering(1)
    window.Initialize()
    usable = window.GetInitialized()
    window.Finalize()
    if not usable:
        msg = "pictures need OpenGL, which is not here; on Debian and Ubuntu install libegl1 and libgl1-mesa-dri."
        raise NoOpenGLError(msg)


_windows: dict[tuple[int, int], vtk.vtkRenderWindow] = {}


def _windowFor(headless: HeadlessSlicer, size: tuple[int, int]) -> vtk.vtkRenderWindow:
    """The off-screen window for pictures of this size, kept until the scene goes: a new one compiles all shaders anew, which
    takes longer than six pictures.
    """
    if size in _windows:
        return _windows[size]
    _requireOpenGL()
    window = vtk.vtkRenderWindow()
    window.SetOffScreenRendering(1)
    window.SetMultiSamples(2)  # without a GPU, four take as long as all the rest of a picture
    window.SetAlphaBitPlanes(1)
    window.SetSize(*size)
    window.SetNumberOfLayers(2)
    # Some displayable managers ask the window for its interactor.
    interactor = vtk.vtkRenderWindowInteractor()
    interactor.SetRenderWindow(window)
    _windows[size] = window

    def close() -> None:
        del _windows[size]
        window.Finalize()

    headless.callBeforeStop(close)
    return window


def _twoLayers(window: vtk.vtkRenderWindow) -> tuple[vtk.vtkRenderer, vtk.vtkRenderer]:
    """The image below and the markups above: in one layer, translucent markups hide the image. Drawn by `SliceView.grab` only."""
    renderers = vtk.vtkRenderer(), vtk.vtkRenderer()
    for layer, renderer in enumerate(renderers):
        renderer.SetLayer(layer)
        renderer.GetActiveCamera().ParallelProjectionOn()
        renderer.DrawOff()
        window.AddRenderer(renderer)
    return renderers


def _imageActor() -> tuple[vtk.vtkImageMapper, vtk.vtkActor2D]:
    mapper = vtk.vtkImageMapper()
    # The slice logic delivers 8-bit colours: show them as they are.
    mapper.SetColorWindow(255)
    mapper.SetColorLevel(127.5)
    actor = vtk.vtkActor2D()
    actor.SetMapper(mapper)
    actor.GetProperty().SetDisplayLocationToBackground()
    return mapper, actor


def _displayableManagers(
    headless: HeadlessSlicer, renderer: vtk.vtkRenderer, sliceNode: vtkMRMLSliceNode
) -> slicer.vtkMRMLDisplayableManagerGroup:
    factory = slicer.vtkMRMLSliceViewDisplayableManagerFactory.GetInstance()
    factory.SetMRMLApplicationLogic(headless.applicationLogic)
    for name in _DISPLAYABLE_MANAGERS:
        if not factory.IsDisplayableManagerRegistered(name):
            factory.RegisterDisplayableManager(name)
    group = slicer.vtkMRMLDisplayableManagerGroup()
    group.Initialize(factory, renderer)
    group.SetMRMLDisplayableNode(sliceNode)
    return group


_OPPOSITE = {"R": "L", "L": "R", "A": "P", "P": "A", "S": "I", "I": "S"}


def _letter(direction: np.ndarray) -> str:
    """The side of the patient that a direction, RAS, points to."""
    axis = int(np.abs(direction).argmax())
    return "RAS"[axis] if direction[axis] > 0 else "LPI"[axis]


def _showWindow(afterwards: ExitStack, volumeNode: vtkMRMLScalarVolumeNode, width: float, level: float) -> None:
    display = volumeNode.GetDisplayNode()
    _set(afterwards, display, "AutoWindowLevel", False)
    _set(afterwards, display, "Window", width)
    _set(afterwards, display, "Level", level)


def _showRois(
    afterwards: ExitStack,
    rois: Collection[vtkMRMLMarkupsROINode],
    visible: Collection[vtkMRMLMarkupsROINode] | None,
    names: bool,
) -> None:
    wanted = None if visible is None else {roi.GetID() for roi in visible}
    for roi in rois:
        display = roi.GetDisplayNode()
        if display is None:
            continue
        if wanted is not None:
            _set(afterwards, display, "Visibility", roi.GetID() in wanted)
        _set(afterwards, display, "HandlesInteractive", False)
        if not names:
            _set(afterwards, display, "PropertiesLabelVisibility", False)
            _set(afterwards, display, "GlyphScale", 0.0)


def _set(afterwards: ExitStack, node: vtkMRMLNode, name: str, value: object) -> None:
    """Set one property of a node and have it set back afterwards. One that is so already is left alone: all views would follow."""
    setter, before = getattr(node, f"Set{name}"), getattr(node, f"Get{name}")()
    if before == value:
        return
    afterwards.callback(setter, before)
    setter(value)
