"""Which slice views a comparison or a quiz holds, and what is mended in a scene that was saved meanwhile."""

from __future__ import annotations

from collections.abc import Iterable

from LesionClassifierLib.heatmap_display import HELD_ATTRIBUTE
from LesionClassifierLib.volume_nodes import nodesOfClass
from slicer import vtkMRMLDisplayNode, vtkMRMLScene, vtkMRMLSliceCompositeNode

COMPARISON, QUIZ = "comparison", "quiz"
LAYOUT_ID = 62011  # of the comparison among Slicer's custom layouts
HIDDEN_ATTRIBUTE = "LesionLens.HiddenFromCaseViews"


def hold(composites: Iterable[vtkMRMLSliceCompositeNode], holder: str) -> None:
    """Keep others from laying volumes over these views until `release`."""
    for composite in composites:
        composite.SetAttribute(HELD_ATTRIBUTE, holder)


def heldBy(scene: vtkMRMLScene) -> str:
    """Who holds slice views now; "" where nobody does."""
    held = (node.GetAttribute(HELD_ATTRIBUTE) for node in nodesOfClass(scene, "vtkMRMLSliceCompositeNode"))
    return next((holder for holder in held if holder), "")


def release(scene: vtkMRMLScene, holder: str | None = None) -> None:
    """Give the views back that ``holder`` has; None: whoever has them."""
    for composite in nodesOfClass(scene, "vtkMRMLSliceCompositeNode"):
        held = composite.GetAttribute(HELD_ATTRIBUTE)
        if held is not None and holder in (None, held):
            composite.RemoveAttribute(HELD_ATTRIBUTE)


def displaysWithViews(scene: vtkMRMLScene) -> list[vtkMRMLDisplayNode]:
    """Displays of boxes, segmentations and models, which can be shown in some views only."""
    classes = ("vtkMRMLMarkupsDisplayNode", "vtkMRMLSegmentationDisplayNode", "vtkMRMLModelDisplayNode")
    return [display for name in classes for display in nodesOfClass(scene, name)]


def showInAllViews(scene: vtkMRMLScene) -> None:
    """Show again what a comparison kept out of the views of its case."""
    for display in displaysWithViews(scene):
        if display.GetAttribute(HIDDEN_ATTRIBUTE):
            display.RemoveAttribute(HIDDEN_ATTRIBUTE)
            display.RemoveAllViewNodeIDs()


def mendLoadedViews(scene: vtkMRMLScene) -> None:
    """Take out of a scene what is left of a comparison or a quiz that was on when it, or Slicer's settings, were saved.

    Call it only while neither is on. Without its case the layout of the comparison shows nothing worth seeing, and in a
    Slicer that has not shown one yet it is unknown and shows no view at all.
    """
    release(scene)
    showInAllViews(scene)
    layout = scene.GetFirstNodeByClass("vtkMRMLLayoutNode")
    if layout is not None and layout.GetViewArrangement() == LAYOUT_ID:
        layout.SetViewArrangement(layout.SlicerLayoutConventionalView)
