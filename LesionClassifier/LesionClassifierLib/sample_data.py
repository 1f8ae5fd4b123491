"""Data to try the module with, in Slicer's Sample Data module: a chest phantom that is computed here."""

from __future__ import annotations

from slicer import vtkMRMLScalarVolumeNode

CATEGORY = "LesionLens"
PHANTOM = "LesionLensChestPhantom"
_BOX_MARGIN_MM = 1.5


def registerSampleData() -> None:
    """Add the phantom to Slicer's Sample Data module; call it once Slicer has started.

    Slicer's own list has CTs of chest and liver already (CTChest, CTLiver).
    """
    import SampleData

    # Texts, not None: Slicer makes lists of one of them and compares their lengths, although nothing is downloaded.
    SampleData.SampleDataLogic.registerCustomSampleDataSource(
        category=CATEGORY,
        sampleName=PHANTOM,
        uris="",
        fileNames="phantom",
        nodeNames="Chest phantom",
        customDownloader=addPhantom,
    )


def addPhantom(_source: object = None) -> list[vtkMRMLScalarVolumeNode]:
    """Compute the phantom and put it into the scene, a lesion around each nodule. Takes some seconds, needs no network."""
    # Here, not above: scipy is not imported each time that Slicer starts.
    import slicer.util
    from LesionLib.phantom.chest import chest_phantom

    from LesionClassifierLib.scene.lesions import addRoiNode, markAsLesion
    from LesionClassifierLib.scene.volumes import addVolumeNode

    with slicer.util.WaitCursor():
        phantom = chest_phantom(seed=0)
        volumeNode = addVolumeNode(slicer.mrmlScene, phantom.volume)
        for nodule in phantom.nodules:
            markAsLesion(addRoiNode(slicer.mrmlScene, nodule.box.grown(_BOX_MARGIN_MM), interactive=True))
    return [volumeNode]
