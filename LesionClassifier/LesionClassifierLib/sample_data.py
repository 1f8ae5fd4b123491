"""Data to try the module with, in Slicer's Sample Data module: two stock CTs, and a phantom that is computed here."""

from __future__ import annotations

import slicer
from LesionLib.phantom.chest import chest_phantom
from slicer import vtkMRMLScalarVolumeNode

from .lesion_nodes import markAsLesion
from .roi_nodes import addRoiNode
from .volume_nodes import addVolumeNode

CATEGORY = "LesionLens"
_URL = "https://github.com/Slicer/SlicerTestingData/releases/download/SHA256/"
# Slicer's own sample data under the checksums that Slicer publishes: name, file, SHA-256.
STOCK = (
    ("CTChest", "CT-chest.nrrd", "4507b664690840abb6cb9af2d919377ffc4ef75b167cb6fd0f747befdb12e38e"),
    ("CTLiver", "CTLiver.nrrd", "e16eae0ae6fefa858c5c11e58f0f1bb81834d81b7102e021571056324ef6f37e"),
)
_BOX_MARGIN_MM = 1.5


def registerSampleData() -> None:
    """Add the data to Slicer's Sample Data module; call it once Slicer has started."""
    import SampleData

    register = SampleData.SampleDataLogic.registerCustomSampleDataSource
    for name, fileName, digest in STOCK:
        register(
            category=CATEGORY, sampleName=name, uris=_URL + digest, fileNames=fileName, nodeNames=name,
            checksums=f"SHA256:{digest}",
        )  # fmt: skip
    register(category=CATEGORY, sampleName="Chest phantom with five nodules", customDownloader=addPhantom)


def addPhantom(_source: object = None) -> list[vtkMRMLScalarVolumeNode]:
    """Compute the phantom and put it into the scene, a lesion around each nodule. Takes some seconds, needs no network."""
    phantom = chest_phantom(seed=0)
    scene = slicer.mrmlScene
    volumeNode = addVolumeNode(scene, phantom.volume)
    for nodule in phantom.nodules:
        markAsLesion(addRoiNode(scene, nodule.box.grown(_BOX_MARGIN_MM), interactive=True))
    return [volumeNode]
