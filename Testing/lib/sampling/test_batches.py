"""Boxes go through a network in batches, in their order, and the next is cut meanwhile."""

from __future__ import annotations

from dataclasses import replace
from threading import Event, current_thread

import pytest
import torch
from LesionLib.errors import BoxError
from LesionLib.model.folder import golden_case
from LesionLib.sampling import batches as module
from LesionLib.sampling.batches import batches
from LesionLib.sampling.resample import AxialStackSpec

SPEC, CPU = AxialStackSpec(size=32, spacing_mm=1.0, max_slices=4), torch.device("cpu")


def boxes(count: int) -> list:
    _, box = golden_case()
    return [replace(box, name=f"L{number}") for number in range(count)]


def test_every_box_comes_once_and_in_its_order():
    volume, _ = golden_case()
    found = list(batches(volume, boxes(7), SPEC, device=CPU, max_lesions=3))
    assert [[lesion.box.name for lesion in batch] for batch in found] == [
        ["L0", "L1", "L2"], ["L3", "L4", "L5"], ["L6"],
    ]  # fmt: skip
    assert list(batches(volume, [], SPEC, device=CPU)) == []


def test_the_next_batch_is_cut_while_one_is_being_used(monkeypatch):
    volume, _ = golden_case()
    crop, cut = module.crop_lesion, {f"L{number}": Event() for number in range(3)}

    def noted(volume, box, spec):
        assert current_thread().name.startswith("LesionLens boxes")
        lesion = crop(volume, box, spec)
        cut[box.name].set()
        return lesion

    monkeypatch.setattr(module, "crop_lesion", noted)
    coming = batches(volume, boxes(3), SPEC, device=CPU, max_lesions=1)
    next(coming)
    assert cut["L1"].wait(20)
    assert not cut["L2"].is_set()  # one batch ahead, no more: it takes memory


def test_a_bad_box_is_refused_in_its_turn():
    volume, box = golden_case()
    given = [*boxes(1), replace(box, centerRAS=box.centerRAS + 500.0, name="far")]
    coming = batches(volume, given, SPEC, device=CPU, max_lesions=1)
    assert next(coming)[0].box.name == "L0"
    with pytest.raises(BoxError, match="far"):
        next(coming)
