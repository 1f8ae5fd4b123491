"""The Slicer module LesionRetrieval: for now without a panel, to be used from Slicer's Python console and scripts."""

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
    from pathlib import Path

    from LesionRetrievalLib.library import Neighbour

DEFAULT_MODEL = "lung-nodule-malignancy"


class LesionRetrieval(ScriptedLoadableModule):
    """What Slicer's module manager shows."""

    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        self.parent.title = _("Lesion Retrieval")
        self.parent.categories = [translate("qSlicerAbstractCoreModule", "Informatics")]
        self.parent.dependencies = ["LesionClassifier"]
        self.parent.contributors = ["The LesionLens developers"]
        self.parent.helpText = _(
            "The most similar cases of a case library for a box on a CT. Research use only, not for diagnosis. This "
            "version has no panel; in the Python console: "
            "<pre>from LesionRetrieval import LesionRetrievalLogic\n"
            "LesionRetrievalLogic().findSimilar(getNode('CT'), getNode('R'), 'nodules.lesionlib')</pre>"
        )
        self.parent.acknowledgementText = ""
        # No entry in the menus until there is a panel to open.
        self.parent.hidden = True


class LesionRetrievalLogic(ScriptedLoadableModuleLogic):
    """Everything the module can do, without a screen."""

    def findSimilar(
        self,
        volumeNode: slicer.vtkMRMLScalarVolumeNode,
        roiNode: slicer.vtkMRMLMarkupsROINode,
        libraryPath: str | Path,
        *,
        model: str = DEFAULT_MODEL,
        k: int = 9,
    ) -> list[Neighbour]:
        """The ``k`` most similar cases of the library, best first; the scene stays as it is.

        Raises `LesionLib.errors.LesionLensError`: a box outside, a library made with another model, …
        """
        from LesionClassifierLib.nodes import boxFromRoi, volumeFromNode
        from LesionLib.bundle import load_bundle
        from LesionLib.classify import Classifier, best_device
        from LesionRetrievalLib.library import CaseLibrary

        bundle = load_bundle(model, device=best_device())
        with CaseLibrary.open(libraryPath) as library:
            library.require_model(bundle.sha256)
            vector = Classifier(bundle, volumeFromNode(volumeNode)).embed(boxFromRoi(roiNode))
            return library.search(vector, k=k, model_sha256=bundle.sha256)


class LesionRetrievalTest(ScriptedLoadableModuleTest):
    """Runs in Slicer and on slicer-core alike."""

    def setUp(self):
        """Start with an empty scene."""
        slicer.mrmlScene.Clear(0)

    def runTest(self):
        """Run all tests, as Slicer's self-test asks."""
        self.setUp()
        self.test_a_lesion_is_most_similar_to_itself()

    def test_a_lesion_is_most_similar_to_itself(self):
        """One lesion in a library of one."""
        import tempfile
        from pathlib import Path

        from LesionClassifierLib.nodes import addRoiNode, addVolumeNode
        from LesionLib.bundle import load_bundle
        from LesionLib.classify import Classifier
        from LesionLib.golden import golden_case
        from LesionRetrievalLib.library import Case, CaseLibrary, ModelIdentity

        volume, box = golden_case()
        bundle = load_bundle(DEFAULT_MODEL)
        vector = Classifier(bundle, volume).embed(box)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "one.lesionlib"
            model = ModelIdentity(bundle.name, bundle.version, bundle.sha256)
            with CaseLibrary.create(path, model=model, dimension=len(vector)) as library:
                case = Case("golden", "sphere", "a formula", "lung", "0" * 32, "0" * 32)
                library.add(case, vector, model_sha256=bundle.sha256)
            volumeNode, roiNode = addVolumeNode(slicer.mrmlScene, volume), addRoiNode(slicer.mrmlScene, box)
            (found,) = LesionRetrievalLogic().findSimilar(volumeNode, roiNode, path)
        self.assertEqual(found.case_id, "golden")
        self.assertGreater(found.similarity, 0.999)
