"""The Slicer module LesionClassifier: boxes on a CT get class probabilities, Grad-CAM volumes and a word on reliability."""

from __future__ import annotations

import sys
import unittest
from collections.abc import Callable, Sequence
from pathlib import Path

import slicer
import vtk
from LesionClassifierLib.logic import RunnerLogic
from LesionLib.inference.results import LesionResult
from LesionLib.inference.runner import InferenceRunner, SharedRunner
from LesionLib.model.folder import DEFAULT_MODEL
from LesionLib.remote.runner import SwitchableRunner
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)
from slicer.util import VTKObservationMixin

DOCUMENTATION = "https://github.com/LesionLens/SlicerLesionLens#in-3d-slicer"


class LesionClassifier(ScriptedLoadableModule):
    """What Slicer's module manager shows."""

    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        self.parent.title = _("Lesion Classifier")
        self.parent.categories = [translate("qSlicerAbstractCoreModule", "Quantification")]
        self.parent.dependencies = ["Markups", "Volumes", "Segmentations"]
        self.parent.contributors = ["The LesionLens developers"]
        self.parent.helpText = _(
            "What is this lesion on CT, why, and how far can the answer be relied on? Place boxes or take the segments of a "
            "segmentation, and press Classify all. <b>Research use only, not for diagnosis.</b><br>The same from the "
            "Python console: <pre>from LesionClassifier import LesionClassifierLogic\n"
            "LesionClassifierLogic().classify(getNode('CT'), [getNode('L1')])</pre>"
        )
        self.parent.helpText += _('<a href="{0}">Documentation</a>').format(DOCUMENTATION)
        self.parent.acknowledgementText = _("The lung nodule models were made from LIDC-IDRI (CC BY 3.0).")
        slicer.app.connect("startupCompleted()", registerSampleData)


def registerSampleData():
    """Offer data to try the module with, once Slicer has started."""
    from LesionClassifierLib.sample_data import registerSampleData as register

    register()


class LesionClassifierWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """The panel's place in Slicer: what it does is in LesionClassifierLib."""

    def __init__(self, parent=None, *, runner=None):
        """``runner``: where the models run (None: in the worker process that both modules share)."""
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self._runner = runner
        self.logic = self.panel = self._parameterNode = self._guiTag = None

    def setup(self):
        """Build the panel; nothing heavy is imported here."""
        ScriptedLoadableModuleWidget.setup(self)
        import qt
        from LesionClassifierLib.panel.classifier_panel import ClassifierPanel

        uiWidget = slicer.util.loadUI(self.resourcePath("UI/LesionClassifier.ui"))
        self.layout.addWidget(uiWidget)
        self.ui = slicer.util.childWidgetVariables(uiWidget)
        uiWidget.setMRMLScene(slicer.mrmlScene)
        self.logic = LesionClassifierLogic(runner=self._runner or SwitchableRunner(SharedRunner()))
        self.panel = ClassifierPanel(self.ui, self.logic, requirements=self.resourcePath("requirements.txt"))
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndCloseEvent, self.onSceneEndClose)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndImportEvent, self.onSceneEndImport)
        for keys, slot in (("Ctrl+Return", self.panel.classifyAll), ("Ctrl+Enter", self.panel.classifyAll)):
            shortcut = qt.QShortcut(qt.QKeySequence(keys), uiWidget)
            shortcut.connect("activated()", slot)
        delete = qt.QShortcut(qt.QKeySequence("Del"), self.ui.lesionTable)
        delete.setContext(qt.Qt.WidgetShortcut)
        delete.connect("activated()", self.panel.lesions.deleteSelected)
        self.initializeParameterNode()

    def cleanup(self):
        """Slicer closes or reloads the module: end the run and its worker."""
        if self.panel is not None:
            self.panel.close()
            self.setParameterNode(None)
        self.removeObservers()
        if self.logic is not None:
            self.logic.close()

    def onReload(self):
        """Read the library folders anew as well: Slicer re-reads the module's own file alone."""
        for name in [name for name in sys.modules if name.partition(".")[0] in ("LesionLib", "LesionClassifierLib")]:
            del sys.modules[name]
        ScriptedLoadableModuleWidget.onReload(self)

    def enter(self):
        """The module is shown: warm the worker while the user still looks for the lesion."""
        self.initializeParameterNode()
        self.panel.setEntered(True)
        self.panel.checkSetup()
        self.panel.warmUp()

    def exit(self):
        """Another module is shown: what runs goes on, slice views and scene are left alone."""
        self.panel.setEntered(False)

    def onSceneStartClose(self, _caller=None, _event=None):
        """Let go of all nodes."""
        self.setParameterNode(None)

    def onSceneEndClose(self, _caller=None, _event=None):
        """Show the scene that is there now."""
        if self.parent is None or self.parent.isEntered:
            self.initializeParameterNode()

    def onSceneEndImport(self, _caller=None, _event=None):
        """Show what was loaded; the slice views stay as the file has them."""
        self.onSceneEndClose()
        if self._parameterNode is not None:
            self.panel.adoptViews()

    def initializeParameterNode(self):
        """Show the scene's parameter node, made if need be; the only CT there is is chosen."""
        from LesionClassifierLib.scene.volumes import firstVolume

        self.setParameterNode(self.logic.getParameterNode())
        if self._parameterNode.volume is None:
            self._parameterNode.volume = firstVolume(slicer.mrmlScene)

    def setParameterNode(self, parameterNode):
        """Connect panel and parameter node, or with None let go of both."""
        if self._parameterNode is not None:
            self._parameterNode.disconnectGui(self._guiTag)
            self.removeObserver(self._parameterNode, vtk.vtkCommand.ModifiedEvent, self.onParametersModified)
        self._parameterNode = parameterNode
        if parameterNode is not None:
            self._guiTag = parameterNode.connectGui(self.ui)
            self.addObserver(parameterNode, vtk.vtkCommand.ModifiedEvent, self.onParametersModified)
        self.panel.setScene(slicer.mrmlScene if parameterNode is not None else None, parameterNode)

    def onParametersModified(self, _caller=None, _event=None):
        """A widget or a script changed a parameter."""
        self.panel.parametersChanged()


class LesionClassifierLogic(ScriptedLoadableModuleLogic, RunnerLogic):
    """Everything the module can do, without a screen. A script uses it as the panel does."""

    def __init__(self, parent=None, *, runner: InferenceRunner | None = None):
        """``runner``: where the models run; None is in this very process, when it is first needed."""
        ScriptedLoadableModuleLogic.__init__(self, parent)
        RunnerLogic.__init__(self, runner=runner)

    def getParameterNode(self):
        """The panel's parameters, kept in the scene."""
        from LesionClassifierLib.parameters import LesionClassifierParameterNode

        return LesionClassifierParameterNode(super().getParameterNode())

    def classify(
        self,
        volumeNode: slicer.vtkMRMLScalarVolumeNode,
        roiNodes: Sequence[slicer.vtkMRMLMarkupsROINode],
        *,
        model: str | Path = DEFAULT_MODEL,
        className: str | None = None,
        device: str = "auto",
        boxJitter: int = 0,
        mapMethod: str | None = None,
        progress: Callable[[int, int, str], None] | None = None,
    ) -> list[LesionResult]:
        """Answer every box and show the answers in the scene: box and segment colours, heat maps, a table.

        ``className``: the class that the map explains (default: as the model chose, as a rule the answer). ``boxJitter``: how
        many boxes drawn a little differently are asked too. ``mapMethod``: "grad_cam", "occlusion" (up to a minute a lesion) or
        "none" (default: as the model chose). Raises `LesionLib.errors.LesionLensError` in plain English.
        """
        from LesionClassifierLib.classification import classifyNodes
        from LesionLib.inference.messages import RunOptions

        options = RunOptions(class_name=className, device=device, box_jitter=boxJitter, map_method=mapMethod)
        response, _shown = classifyNodes(self.runner, volumeNode, roiNodes, model, options, progress=progress)
        return response.results

    def addSegments(
        self,
        segmentationNode: slicer.vtkMRMLSegmentationNode,
        *,
        marginMm: float | None = None,
        model: str | Path = DEFAULT_MODEL,
    ) -> list[slicer.vtkMRMLMarkupsROINode]:
        """Every segment as a lesion, with ``marginMm`` around it (default: what ``model`` was made for); for `classify`."""
        from LesionClassifierLib.scene.lesions import addLesionsFromSegmentation
        from LesionLib.model.folder import segment_margin_mm

        marginMm = segment_margin_mm(model) if marginMm is None else marginMm
        return addLesionsFromSegmentation(segmentationNode.GetScene(), segmentationNode, marginMm=marginMm)

    def exportCsv(
        self, path: str | Path, roiNodes: Sequence[slicer.vtkMRMLMarkupsROINode], *, answerAnyway: bool = False
    ) -> int:
        """Write the answers of these lesions as CSV, and return how many there are.

        ``answerAnyway``: with the likeliest class also where the model has no answer.
        """
        from LesionClassifierLib.export import exportCsv

        return exportCsv(Path(path), roiNodes, answerAnyway=answerAnyway)

    def exportReport(
        self,
        path: str | Path,
        roiNodes: Sequence[slicer.vtkMRMLMarkupsROINode],
        *,
        files=None,
        answerAnyway: bool = False,
        warn=None,
    ) -> int:
        """Write the answers as a DICOM structured report (TID 1500), and return how many there are.

        ``files``: where the CT's DICOM files are (default: Slicer's DICOM database). ``answerAnyway``: as for `exportCsv`.
        ``warn``: a function that is told what the report had to leave empty.
        """
        from LesionClassifierLib.export import exportReport

        files = files or getattr(slicer, "dicomDatabase", None)
        return exportReport(Path(path), roiNodes, files, answerAnyway=answerAnyway, warn=warn)

    def exportDicom(
        self,
        folder: str | Path,
        roiNodes: Sequence[slicer.vtkMRMLMarkupsROINode],
        *,
        files=None,
        answerAnyway: bool = False,
        warn=None,
    ) -> int:
        """Write lesions (SEG), heat maps (parametric maps) and report as DICOM files into a folder; how many lesions there are.

        They refer to each other. The arguments are those of `exportReport`; ``warn`` is also told what could not be written.
        """
        from LesionClassifierLib.dicom_results import exportDicom

        files = files or getattr(slicer, "dicomDatabase", None)
        return exportDicom(Path(folder), roiNodes, files, answerAnyway=answerAnyway, warn=warn)


class LesionClassifierTest(ScriptedLoadableModuleTest):
    """Runs in Slicer and on slicer-core alike."""

    def setUp(self):
        """Start with an empty scene."""
        slicer.mrmlScene.Clear(0)

    def runTest(self):
        """Run all tests, as the button *Reload and Test* asks; Slicer's test runner takes them one by one."""
        for test in (
            self.test_lesions_are_named_and_remembered,
            self.test_a_box_on_the_golden_case_is_answered_in_the_scene,
        ):
            self.setUp()
            try:
                test()
            except unittest.SkipTest as reason:
                self.delayDisplay(str(reason))

    def test_lesions_are_named_and_remembered(self):
        """Boxes become lesions without any model; needs no torch."""
        from LesionClassifierLib.scene.lesions import (
            addRoiNode,
            lesionNodes,
            lesionsFromNodes,
            markAsLesion,
            nextLesionName,
        )
        from LesionLib.geometry import LesionBox

        scene = slicer.mrmlScene
        self.assertEqual(nextLesionName(scene), "L1")
        roiNode = markAsLesion(addRoiNode(scene, LesionBox([1.0, 2.0, 3.0], [10.0, 12.0, 14.0], name="L1")))
        self.assertEqual(lesionNodes(scene), [roiNode])
        (box,) = lesionsFromNodes([roiNode])
        self.assertAlmostEqual(box.sizeMm[2], 14.0, places=4)
        self.assertEqual(nextLesionName(scene), "L2")

    def test_a_box_on_the_golden_case_is_answered_in_the_scene(self):
        """One lesion, all the way from nodes to nodes."""
        from LesionClassifierLib.setup import missingPackages

        missing = [package.name for package in missingPackages()]
        if missing:
            self.skipTest(f"Left out, because {', '.join(missing)} is missing: everything that answers.")
        from LesionClassifierLib.scene.lesions import addRoiNode
        from LesionClassifierLib.scene.results import staleReason, storedResult
        from LesionClassifierLib.scene.volumes import addVolumeNode
        from LesionLib.model.folder import golden_case

        volume, box = golden_case()
        volumeNode, roiNode = addVolumeNode(slicer.mrmlScene, volume), addRoiNode(slicer.mrmlScene, box)
        (result,) = LesionClassifierLogic().classify(volumeNode, [roiNode])
        self.assertAlmostEqual(sum(result.probabilities.values()), 1.0, places=5)
        self.assertEqual(roiNode.GetAttribute("LesionLens.Label"), result.label)
        self.assertEqual(storedResult(roiNode).result.label, result.label)
        self.assertEqual(staleReason(roiNode), "")
        self.assertEqual(slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLTableNode"), 1)
