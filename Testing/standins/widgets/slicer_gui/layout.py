"""``slicer.app.layoutManager()``: Slicer's own layout logic on the scene; the views are nodes, nothing is drawn."""

from __future__ import annotations

import slicer


class LayoutManager:
    """What is shown is what `layoutLogic` lays out. An arrangement that the layout node does not know leaves no view."""

    def __init__(self, scene: slicer.vtkMRMLScene) -> None:
        self._scene = scene
        self._logic = slicer.vtkMRMLLayoutLogic()
        self._logic.SetMRMLScene(scene)

    def layoutLogic(self) -> slicer.vtkMRMLLayoutLogic:
        """The logic that makes the nodes of the views; it has the layout node too."""
        return self._logic

    def sliceViewNames(self) -> tuple[str, ...]:
        """The names of the scene's slice nodes: each has a view, laid out or not."""
        count = self._scene.GetNumberOfNodesByClass("vtkMRMLSliceNode")
        return tuple(self._scene.GetNthNodeByClass(place, "vtkMRMLSliceNode").GetLayoutName() for place in range(count))

    @property
    def layout(self) -> int:
        """The arrangement."""
        return self._logic.GetLayoutNode().GetViewArrangement()

    def setLayout(self, layout: int) -> None:
        """Set the arrangement; in place of one that is not known the conventional one."""
        node = self._logic.GetLayoutNode()
        if layout != self.layout:
            isKnown = node.IsLayoutDescription(layout)
            node.RemoveAllMaximizedViewNodes()
            node.SetViewArrangement(layout if isKnown else node.SlicerLayoutConventionalView)

    def _close(self) -> None:
        """Let go of the scene, and take the views and their arrangement along."""
        self._logic.SetMRMLScene(None)
        for name in ("vtkMRMLLayoutNode", "vtkMRMLAbstractViewNode", "vtkMRMLSliceCompositeNode"):
            for node in slicer.util.getNodesByClass(name):
                self._scene.RemoveNode(node)
