"""The Slicer module LesionClassifier: boxes on a CT get class probabilities, Grad-CAM volumes and a word on reliability."""

from __future__ import annotations

from typing import TYPE_CHECKING

import slicer
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from LesionLib.results import LesionResult
    from LesionLib.runner import InferenceRunner

DEFAULT_MODEL = "lung-nodule-malignancy"


class LesionClassifier(ScriptedLoadableModule):
    """What Slicer's module manager shows."""

    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        self.parent.title = _("Lesion Classifier")
        self.parent.categories = [translate("qSlicerAbstractCoreModule", "Quantification")]
        self.parent.dependencies = ["Markups", "Volumes", "Segmentations"]
        self.parent.contributors = ["The LesionLens developers"]
        self.parent.helpText = _(
            "Class probabilities and Grad-CAM volumes for boxes (markups ROIs) on a CT. Research use only, not for "
            "diagnosis. This version has no panel; in the Python console: "
            "<pre>from LesionClassifier import LesionClassifierLogic\n"
            "LesionClassifierLogic().classify(getNode('CT'), [getNode('R')])</pre>"
        )
        self.parent.acknowledgementText = _("The lung-nodule-malignancy model was made from LIDC-IDRI (CC BY 3.0).")
        # No entry in the menus until there is a panel to open.
        self.parent.hidden = True


class LesionClassifierLogic(ScriptedLoadableModuleLogic):
    """Everything the module can do, without a screen. A script uses it as the panel does."""

    def __init__(self, parent=None, *, runner: InferenceRunner | None = None):
        """``runner``: where the models run; None is in this very process, when it is first needed."""
        ScriptedLoadableModuleLogic.__init__(self, parent)
        self._runner = runner

    @property
    def runner(self) -> InferenceRunner:
        """Where the models run."""
        if self._runner is None:
            from LesionLib.runner import InProcessRunner

            self._runner = InProcessRunner()
        return self._runner

    def classify(
        self,
        volumeNode: slicer.vtkMRMLScalarVolumeNode,
        roiNodes: Sequence[slicer.vtkMRMLMarkupsROINode],
        *,
        model: str | Path = DEFAULT_MODEL,
        className: str | None = None,
        device: str = "auto",
        redrawn: int = 0,
        progress: Callable[[int, int, str], None] | None = None,
    ) -> list[LesionResult]:
        """Answer every box and show the answers in the scene: box and segment colours, Grad-CAM volumes, a table.

        ``className``: the class that the Grad-CAM explains (default: the answer). ``redrawn``: how many boxes drawn a
        little differently are asked too. Raises `LesionLib.errors.LesionLensError` in plain English.
        """
        from LesionClassifierLib.classification import answerNodes
        from LesionLib.runner_types import RunOptions

        options = RunOptions(class_name=className, device=device, redrawn=redrawn)
        answer, _shown = answerNodes(self.runner, volumeNode, roiNodes, model, options, progress=progress)
        return answer.results

    def addSegments(
        self, segmentationNode: slicer.vtkMRMLSegmentationNode, *, marginMm: float = 2.0
    ) -> list[slicer.vtkMRMLMarkupsROINode]:
        """Every segment as a lesion, with ``marginMm`` around it; give them to `classify`."""
        from LesionClassifierLib.lesion_nodes import addLesionsFromSegmentation

        return addLesionsFromSegmentation(segmentationNode.GetScene(), segmentationNode, marginMm=marginMm)

    def exportCsv(self, path: str | Path, roiNodes: Sequence[slicer.vtkMRMLMarkupsROINode]) -> int:
        """Write the answers of these lesions as CSV, and return how many there are."""
        from pathlib import Path

        from LesionClassifierLib.exports import exportCsv

        return exportCsv(Path(path), roiNodes)


class LesionClassifierTest(ScriptedLoadableModuleTest):
    """Runs in Slicer and on slicer-core alike."""

    def setUp(self):
        """Start with an empty scene."""
        slicer.mrmlScene.Clear(0)

    def runTest(self):
        """Run all tests, as Slicer's self-test asks."""
        self.setUp()
        self.test_a_box_on_the_golden_case_is_answered_in_the_scene()

    def test_a_box_on_the_golden_case_is_answered_in_the_scene(self):
        """One lesion, all the way from nodes to nodes."""
        from LesionClassifierLib.nodes import addRoiNode, addVolumeNode
        from LesionLib.golden import golden_case

        volume, box = golden_case()
        volumeNode, roiNode = addVolumeNode(slicer.mrmlScene, volume), addRoiNode(slicer.mrmlScene, box)
        (result,) = LesionClassifierLogic().classify(volumeNode, [roiNode])
        self.assertAlmostEqual(sum(result.probabilities.values()), 1.0, places=5)
        self.assertEqual(roiNode.GetAttribute("LesionLens.Label"), result.label)
        self.assertEqual(slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLTableNode"), 1)
