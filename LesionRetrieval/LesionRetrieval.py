"""The Slicer module LesionRetrieval: the most similar known cases for a box on a CT, side by side with it, and a vote."""

from __future__ import annotations

import sys
import unittest

import slicer
import vtk
from LesionLib.inference.runner import SharedRunner
from LesionLib.remote.runner import SwitchableRunner
from LesionRetrievalLib.logic import RetrievalLogic
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)
from slicer.util import VTKObservationMixin


class LesionRetrieval(ScriptedLoadableModule):
    """What Slicer's module manager shows."""

    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        self.parent.title = _("Lesion Retrieval")
        self.parent.categories = [translate("qSlicerAbstractCoreModule", "Informatics")]
        self.parent.dependencies = ["LesionClassifier"]
        self.parent.contributors = ["The LesionLens developers"]
        self.parent.helpText = _(
            "What did similar lesions turn out to be? Open a case library, choose a box on a CT and press Find similar "
            "cases. <b>Research use only, not for diagnosis.</b><br>The same from the Python console: "
            "<pre>from LesionRetrieval import LesionRetrievalLogic\n"
            "logic = LesionRetrievalLogic()\n"
            "logic.openLibrary('nodules.lesionlib')\n"
            "found = logic.findSimilar(getNode('CT'), getNode('L1'))\n"
            "print(logic.neighbourVote(found).shares)\n"
            "logic.showSideBySide(getNode('CT'), getNode('L1'), found[0].case_id)</pre>"
        )
        self.parent.helpText += _(
            "<p>More in the <a href='https://github.com/LesionLens/SlicerLesionLens'>documentation of LesionLens</a>.</p>"
        )
        self.parent.acknowledgementText = _(
            "The lung nodule models were made from LIDC-IDRI (CC BY 3.0). LesionLens stands on 3D Slicer, PyTorch, "
            "MONAI, NumPy, SciPy, SimpleITK, highdicom and SQLite."
        )
        slicer.app.connect("startupCompleted()", watchLoadedScenes)


def watchLoadedScenes():
    """Once Slicer has started: scenes, and Slicer's own settings, may have been saved in the middle of a comparison."""
    slicer.mrmlScene.AddObserver(slicer.mrmlScene.EndImportEvent, mendLoadedViews)
    layout = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLLayoutNode")
    if layout is not None and not layout.IsLayoutDescription(layout.GetViewArrangement()):
        mendLoadedViews()


def mendLoadedViews(_caller=None, _event=None):
    """Neither is on now: a comparison ends, and a quiz is paused, when a scene is loaded."""
    from LesionRetrievalLib.scene.views import mendLoadedViews as mend

    mend(slicer.mrmlScene)


class LesionRetrievalWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """The panel's place in Slicer: what it does is in LesionRetrievalLib."""

    def __init__(self, parent=None, *, runner=None):
        """``runner``: where the models run (None: in the worker process that both modules share)."""
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self._runner = runner
        self.logic = self.panel = self.quiz = self._parameterNode = self._guiTag = None

    def setup(self):
        """Build the panel; nothing heavy is imported here."""
        ScriptedLoadableModuleWidget.setup(self)
        import qt
        from LesionRetrievalLib.panel.retrieval_panel import RetrievalPanel
        from LesionRetrievalLib.quiz_panel.quiz_panel import QuizPanel

        uiWidget = slicer.util.loadUI(self.resourcePath("UI/LesionRetrieval.ui"))
        self.layout.addWidget(uiWidget)
        self.ui = slicer.util.childWidgetVariables(uiWidget)
        uiWidget.setMRMLScene(slicer.mrmlScene)
        self.logic = LesionRetrievalLogic(runner=self._runner or SwitchableRunner(SharedRunner()))
        self.panel = RetrievalPanel(self.ui, self.logic)
        self.quiz = QuizPanel(container=self.ui.teachingRoomPlace)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndCloseEvent, self.onSceneEndClose)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndImportEvent, self.onSceneEndImport)
        for keys in ("Ctrl+Return", "Ctrl+Enter"):
            qt.QShortcut(qt.QKeySequence(keys), uiWidget).connect("activated()", self.panel.find)
        self.initializeParameterNode()

    def cleanup(self):
        """Slicer closes or reloads the module: end the run and its worker."""
        if self.quiz is not None:
            self.quiz.cleanup()
        if self.panel is not None:
            self.panel.close()
            self.setParameterNode(None)
        self.removeObservers()
        if self.logic is not None:
            self.logic.close()

    def onReload(self):
        """Read the library folders anew as well: Slicer re-reads the module's own file alone."""
        for name in [name for name in sys.modules if name.partition(".")[0] in ("LesionRetrievalLib",)]:
            del sys.modules[name]
        ScriptedLoadableModuleWidget.onReload(self)

    def enter(self):
        """The module is shown: warm the worker while the user still looks for the lesion."""
        self.panel.setEntered(True)
        self.initializeParameterNode()
        self.panel.checkSetup()
        self.panel.warmUp()

    def exit(self):
        """Another module is shown: what runs goes on, a comparison or a quiz stays, all else of views and scene is left alone."""
        self.panel.setEntered(False)

    def onSceneStartClose(self, _caller=None, _event=None):
        """Let go of all nodes."""
        self.setParameterNode(None)

    def onSceneEndClose(self, _caller=None, _event=None):
        """Show the scene that is there now."""
        if self.parent is None or self.parent.isEntered:
            self.initializeParameterNode()

    def onSceneEndImport(self, _caller=None, _event=None):
        """Show what was loaded, without what a comparison or a quiz has left in it."""
        mendLoadedViews()
        self.onSceneEndClose()

    def initializeParameterNode(self):
        """Show the scene's parameter node, made if need be; the only CT and the first lesion there are are chosen."""
        from LesionClassifierLib.scene.lesions import lesionNodes
        from LesionClassifierLib.scene.volumes import firstVolume

        self.setParameterNode(self.logic.getParameterNode())
        if self._parameterNode.volume is None:
            self._parameterNode.volume = firstVolume(slicer.mrmlScene)
        if self._parameterNode.lesion is None:
            self._parameterNode.lesion = next(iter(lesionNodes(slicer.mrmlScene)), None)

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


class LesionRetrievalLogic(ScriptedLoadableModuleLogic, RetrievalLogic):
    """Everything the module can do, without a screen: see `RetrievalLogic`."""

    def __init__(self, parent=None, *, runner=None, keyPath=None):
        """``runner``: where models run (None: in this process). ``keyPath``: the owner's key (None: the usual place)."""
        ScriptedLoadableModuleLogic.__init__(self, parent)
        RetrievalLogic.__init__(self, runner=runner, keyPath=keyPath)

    def getParameterNode(self):
        """The panel's parameters, kept in the scene."""
        from LesionRetrievalLib.parameters import LesionRetrievalParameterNode

        return LesionRetrievalParameterNode(super().getParameterNode())


class LesionRetrievalTest(ScriptedLoadableModuleTest):
    """Runs in Slicer and on slicer-core alike."""

    def setUp(self):
        """Start with an empty scene."""
        slicer.mrmlScene.Clear(0)

    def runTest(self):
        """Run all tests, as the Reload and Test button asks; the dashboard takes them one by one."""
        self.setUp()
        self.test_cases_vote_with_their_similarity()
        self.setUp()
        try:
            self.test_a_lesion_is_most_similar_to_itself_and_is_shown_beside_it()
        except unittest.SkipTest as skipped:
            self.delayDisplay(str(skipped))

    def test_cases_vote_with_their_similarity(self):
        """Needs no torch."""
        from LesionRetrievalLib.library.cases import Neighbour

        hashes = {"patient_hash": "0" * 32, "study_hash": "0" * 32, "attributes": {}, "note": ""}
        found = [Neighbour("a", "cyst", 0.6, "histology", "liver", **hashes)]
        found.append(Neighbour("b", "metastasis", 0.2, "histology", "liver", **hashes))
        vote = LesionRetrievalLogic().neighbourVote(found)
        self.assertEqual(vote.top, "cyst")
        self.assertAlmostEqual(vote.shares["cyst"], 0.75)

    def test_a_lesion_is_most_similar_to_itself_and_is_shown_beside_it(self):
        """A library of one, from making it to looking at its case; left out where there is no torch."""
        import tempfile
        from pathlib import Path

        from LesionClassifierLib.setup import missingPackages

        if missing := ", ".join(package.name for package in missingPackages()):
            self.skipTest(f"Left out, because {missing} is missing: everything that asks a model.")
        from LesionClassifierLib.scene.lesions import addRoiNode
        from LesionClassifierLib.scene.volumes import addVolumeNode
        from LesionLib.model.folder import golden_case
        from LesionRetrievalLib.library.intake import NewCase

        volume, box = golden_case()
        volumeNode, roiNode = addVolumeNode(slicer.mrmlScene, volume), addRoiNode(slicer.mrmlScene, box)
        with tempfile.TemporaryDirectory() as folder:
            logic = LesionRetrievalLogic(keyPath=Path(folder) / "pseudonym.key")
            logic.createLibrary(Path(folder) / "one.lesionlib")
            case = NewCase("sphere", "a formula", organ="lung", with_thumbnails=True, with_patch=True)
            caseId = logic.addCase(volumeNode, roiNode, case, patient="golden patient")
            (found,) = logic.findSimilar(volumeNode, roiNode)
            self.assertEqual(found.case_id, caseId)
            self.assertGreater(found.similarity, 0.999)
            self.assertEqual(logic.findSimilar(volumeNode, roiNode, patient="golden patient"), [])
            volumes = slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode")
            shown = logic.showSideBySide(volumeNode, roiNode, caseId)
            self.assertEqual(slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode"), volumes + 1)
            self.assertEqual(shown.roiNode.GetName(), "sphere")
            logic.close()
        self.assertEqual(slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode"), volumes)
