"""From a box to its most similar cases, as a reader would follow it on the phantoms; the README's picture is made here."""

from __future__ import annotations

import os

import pytest
from LesionClassifierLib.sample_data import addPhantom
from LesionClassifierLib.scene.lesions import lesionNodes
from LesionLib.inference.messages import EmbeddingRequest, describing_request
from LesionLib.phantom.chest import ChestPhantom, chest_phantom
from LesionRetrievalLib.library.cases import ModelIdentity
from LesionRetrievalLib.library.intake import NewCase, Owner, add_case
from LesionRetrievalLib.library.pseudonyms import pseudonymisation_key
from LesionRetrievalLib.library.store import CaseLibrary
from phantoms import whole_phantom

LONG = 120
MODEL = "lung-nodule-malignancy"


def another_phantom() -> ChestPhantom:
    """A chest of wider voxels, as from another scanner, in a fifth of the time; for the README's picture as fine as the first."""
    is_drawn = bool(os.environ.get("LESIONLENS_TEST_ARTEFACTS"))
    return whole_phantom(seed=1) if is_drawn else chest_phantom(seed=1, spacing_mm=(1.6, 1.6, 2.0))


@pytest.fixture
def library_path(tmp_path, phantom_once, in_process):
    """The nodules of another phantom and four of this one, with pictures and CT; what they are is how they were made."""
    path, key = tmp_path / "phantoms.lesionlib", pseudonymisation_key()
    first = in_process.run(describing_request(MODEL))
    with CaseLibrary.create(path, model=ModelIdentity.of(first.info), dimension=len(first.vector)) as library:
        for seed, phantom in ((0, whole_phantom()), (1, another_phantom())):
            owner = Owner(key.hash(f"phantom {seed}"), key.hash(f"phantom {seed}", domain="study"))
            for nodule in phantom.nodules:
                if (seed, nodule.kind) == (0, "spiculated"):
                    continue  # the one that is asked about
                box = nodule.box.grown(1.5)
                embedding = in_process.run(EmbeddingRequest(MODEL, phantom.volume, box))
                new = NewCase(
                    nodule.kind, "the phantom's recipe", organ="lung", attributes={"diameter_mm": nodule.diameter_mm},
                    with_thumbnails=True, with_patch=True, case_id=f"phantom-{seed}-{nodule.kind.replace(' ', '-')}",
                )  # fmt: skip
                add_case(library, phantom.volume, box, embedding, new=new, owner=owner)
    return path


def test_a_nodule_s_similar_cases_are_found_read_and_laid_beside_it(
    module_widget, scene, spin, screenshot, library_path
):
    panel = module_widget("LesionRetrieval", size=(560, 1190))
    ui = panel.ui
    addPhantom()
    panel.initializeParameterNode()
    panel.panel.library.open(library_path)
    roi = next(node for node in lesionNodes(scene) if "spiculated" in node.GetName())
    ui.lesionSelector.setCurrentNode(roi)
    assert "9 cases" in ui.libraryLabel.text

    ui.findButton.click()
    spin(until=lambda: not panel.panel.run.isRunning, seconds=LONG)
    nine = [card.neighbour for card in panel.panel.found.gallery.cards[:9]]
    assert nine[0].case_id == "phantom-1-spiculated"
    assert [n.similarity for n in nine] == sorted((n.similarity for n in nine), reverse=True)
    assert all(card._thumbnails["axial"].visible for card in panel.panel.found.gallery.cards[:9])

    ui.whyButton.click()
    spin(until=lambda: not panel.panel.run.isRunning, seconds=LONG)
    assert "Painted over the CT" in ui.statusLabel.text
    ui.statusLabel.text = f"9 similar cases for {roi.GetName()}."
    screenshot(panel, "retrieval")

    ui.sideBySideButton.click()
    assert nine[0].case_id in ui.comparisonLabel.text
    assert panel.logic.comparison.roiNode.GetName() == "spiculated"
    ui.backButton.click()
    assert panel.logic.comparison is None
