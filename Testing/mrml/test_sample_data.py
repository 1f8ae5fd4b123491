"""Sample data: registered as Slicer expects it, and the phantom comes with its lesions."""

from __future__ import annotations

import re
import sys
from types import SimpleNamespace

import pytest
from LesionClassifierLib.lesion_nodes import lesionNodes, lesionsFromNodes
from LesionClassifierLib.nodes import volumeFromNode
from LesionClassifierLib.sample_data import CATEGORY, addPhantom, registerSampleData
from LesionLib.geometry import require_overlap


@pytest.fixture
def registered(monkeypatch):
    """What reaches Slicer's Sample Data module, which is not here."""
    calls = []
    logic = SimpleNamespace(registerCustomSampleDataSource=lambda **given: calls.append(given))
    monkeypatch.setitem(sys.modules, "SampleData", SimpleNamespace(SampleDataLogic=logic))
    registerSampleData()
    return calls


def test_every_download_has_the_checksum_that_its_address_names(registered):
    downloads = [source for source in registered if "uris" in source]
    assert [source["sampleName"] for source in downloads] == ["CTChest", "CTLiver"]
    for source in downloads:
        (digest,) = re.findall(r"SHA256/([0-9a-f]{64})$", source["uris"])
        assert source["checksums"] == f"SHA256:{digest}"
        assert source["uris"].startswith("https://github.com/Slicer/SlicerTestingData/")
        assert source["fileNames"].endswith(".nrrd")


def test_the_phantom_is_computed_here_with_a_lesion_around_each_nodule(registered, scene):
    (phantom,) = [source for source in registered if "uris" not in source]
    assert phantom["category"] == CATEGORY
    assert phantom["customDownloader"] is addPhantom
    (volumeNode,) = phantom["customDownloader"](None)
    volume = volumeFromNode(volumeNode)
    boxes = lesionsFromNodes(lesionNodes(scene))
    assert len(boxes) == 5
    for box in boxes:
        require_overlap(volume, box)
