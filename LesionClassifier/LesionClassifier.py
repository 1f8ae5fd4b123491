"""The Slicer module LesionClassifier: for now without a panel, to be used from Slicer's Python console and scripts."""

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

    from LesionLib.results import LesionResult

DEFAULT_MODEL = "lung-nodule-malignancy"


class LesionClassifier(ScriptedLoadableModule):
    """What Slicer's module manager shows."""

    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        self.parent.title = _("Lesion Classifier")
        self.parent.categories = [translate("qSlicerAbstractCoreModule", "Quantification")]
        self.parent.dependencies = ["Markups", "Volumes"]
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
    """Everything the module can do, without a screen."""

    def classify(
        self,
        volumeNode: slicer.vtkMRMLScalarVolumeNode,
        roiNodes: Sequence[slicer.vtkMRMLMarkupsROINode],
        *,
        model: str = DEFAULT_MODEL,
        progress: Callable[[int, int, str], None] | None = None,
    ) -> list[LesionResult]:
        """Answer every box and show the answers in the scene: box colours, Grad-CAM volumes, a table.

        Needs torch, safetensors and jsonschema. Raises `LesionLib.errors.LesionLensError` in plain English.
        """
        from LesionClassifierLib.classification import classifyNodes, runInfo, showResults
        from LesionLib.bundle import load_bundle
        from LesionLib.classify import best_device

        bundle = load_bundle(model, device=best_device())
        results = classifyNodes(volumeNode, roiNodes, bundle, progress=progress)
        showResults(
            volumeNode.GetScene(), volumeNode, roiNodes, results, run=runInfo(volumeNode, bundle), bundle=bundle
        )
        return results


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
