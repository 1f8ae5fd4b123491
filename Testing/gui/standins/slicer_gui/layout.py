"""``slicer.app.layoutManager()`` where nothing is laid out: the layout node of the scene, and no view."""

from __future__ import annotations

import slicer


class LayoutManager:
    """Slices and 3D views are drawn in other tests; here a module may ask for them and gets none."""

    def __init__(self, scene: slicer.vtkMRMLScene) -> None:
        self._scene = scene

    def layoutLogic(self) -> None:
        """None: no views, no logic of theirs."""

    def sliceViewNames(self) -> tuple[str, ...]:
        """The names of the scene's slice nodes."""
        count = self._scene.GetNumberOfNodesByClass("vtkMRMLSliceNode")
        return tuple(self._scene.GetNthNodeByClass(place, "vtkMRMLSliceNode").GetLayoutName() for place in range(count))

    def sliceWidget(self, _name: str) -> None:
        """None: there is no such view."""

    def threeDWidget(self, _index: int) -> None:
        """None: there is no such view."""

    @property
    def threeDViewCount(self) -> int:
        """How many 3D views there are."""
        return 0

    def setLayout(self, layout: int) -> None:
        """Set the arrangement in the layout node, if the scene has one."""
        node = self._scene.GetFirstNodeByClass("vtkMRMLLayoutNode")
        if node is not None:
            node.SetViewArrangement(layout)

    def resetSliceViews(self) -> None:
        """Nothing to reset."""

    def resetThreeDViews(self) -> None:
        """Nothing to reset."""
