"""What a model's own figures say, in the sentences that stand beside every answer. Needs no torch.

They are read from the manifest, which the model's card is made from: by ``lung-nodules`` in groups, by ``lesiontrain export``
as metrics. What a manifest does not hold is not said.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

LOOKED = "It shows where the model looked, not where disease is."
_NETWORKS = ("this model",)
_SIZES = ("volume only", "size alone")
_MISSING = (KeyError, TypeError, ValueError, IndexError, AttributeError, StopIteration)


def figure_sentences(manifest: Mapping[str, Any]) -> tuple[str, ...]:
    """The AUC beside that of size alone, and the prior of the probabilities; none of them where it is not known."""
    return tuple(message for message in (_auc_sentence(manifest), _prior_sentence(manifest)) if message)


def heat_sentence(manifest: Mapping[str, Any], *, method: str = "grad_cam") -> str:
    """Whether the model's heat maps lie on lesions more than chance would put them there; always what they show.

    ``method``: how the map was made. What a model says of its maps holds for its own method, its figures for Grad-CAM.
    """
    sentence = _measured_heat(manifest) if method == "grad_cam" else LOOKED
    note = _explanation_note(manifest, method)
    return f"{sentence} {note}" if note else sentence


def _explanation_note(manifest: Mapping[str, Any], method: str) -> str:
    try:
        section = manifest["lesionlens"]["explanation"]
        note = section["note"] if section.get("method", "grad_cam") == method else ""
    except _MISSING:
        return ""
    return note if isinstance(note, str) else ""


def _measured_heat(manifest: Mapping[str, Any]) -> str:
    try:
        training = manifest["lesionlens"]["training"]
        figures = training["grad_cam"]["all"]
        inside, chance = float(figures["energy"]), float(figures["chance"])
    except _MISSING:
        return _pointed_heat(manifest)
    measured = f"On the model's own lesions {inside:.0%} of the heat lay in the lesion, where chance puts {chance:.0%}."
    return " ".join(filter(None, (LOOKED, measured, _beside_the_middle(training))))


def _beside_the_middle(training: Mapping[str, Any]) -> str:
    """Where the middle of the box, which asks no network, points at lesions as well: then a map tells how, not where."""
    try:
        rows = training["map_checks"]["peak_inside"]
        map_, middle = (float(rows[name]["value"]) for name in (_NETWORKS[0], "the middle of the box"))
    except _MISSING:
        return ""
    if map_ > middle:
        return ""
    return (
        f"Its hottest place lay in the lesion in {map_:.0%}, the middle of the box in {middle:.0%}: take the map for how the model "
        "came to its answer, not for where the lesion is."
    )


def _pointed_heat(manifest: Mapping[str, Any]) -> str:
    """By the hottest place of each map, where the recipe measured that."""
    try:
        figures = manifest["lesionlens"]["training"]["figures"]["localisation"]
        pointing, chance = figures["pointing"], float(figures["pointing_by_chance"])
        share, count = float(pointing["hits"]) / int(pointing["n"]), int(pointing["n"])
    except (*_MISSING, ZeroDivisionError):
        return LOOKED
    return (
        f"{LOOKED} On {count} lesions that the model did not know the hottest place lay in the lesion in {share:.0%}, where chance "
        f"puts {chance:.0%}."
    )


def _auc_sentence(manifest: Mapping[str, Any]) -> str:
    try:
        rows, lesions, patients = _measured(manifest)
        model, size = (_auc(rows, names, exact=exact) for names, exact in ((_NETWORKS, False), (_SIZES, True)))
    except _MISSING:
        return ""
    what, whose = ("computed lesions", "phantom patients") if _is_phantom(manifest) else ("lesions", "patients")
    return f"Measured on {lesions} {what} of {patients} {whose}: AUC {model}; size alone has {size}."


def _is_phantom(manifest: Mapping[str, Any]) -> bool:
    return "phantom" in manifest["lesionlens"]


def _measured(manifest: Mapping[str, Any]) -> tuple[Mapping[str, Any], int, int]:
    """The rows of figures, and of how many lesions and patients they are."""
    training = manifest["lesionlens"]["training"]
    if "groups" in training:
        group = training["groups"][0]
        return (
            group["figures"],
            int(group["lesions"] if "lesions" in group else group["nodules"]),
            int(group["patients"]),
        )
    metrics = training["metrics"]
    return metrics["figures"], int(metrics["lesions"]), int(metrics["patients"])


def _auc(rows: Mapping[str, Any], names: tuple[str, ...], *, exact: bool) -> str:
    """The row's AUC with its interval. Without ``exact`` the first row where none has the name: a run's own comes first."""
    name = next((name for name in names if name in rows), None)
    if name is None and exact:
        raise KeyError(names)
    row = rows[name or next(iter(rows))]
    figure = row.get("AUC") or row["auc"]
    if figure["low"] is None:
        return f"{float(figure['value']):.3f}"
    return f"{float(figure['value']):.3f} ({float(figure['low']):.3f}-{float(figure['high']):.3f})"


def _prior_sentence(manifest: Mapping[str, Any]) -> str:
    try:
        ours = manifest["lesionlens"]
        names = [entry["name"] for entry in ours["classes"]]
        assumed = ", ".join(f"{p:.0%} {name}" for p, name in zip(ours["class_prior"], names, strict=True))
    except _MISSING:
        return ""
    among = "phantoms" if _is_phantom(manifest) else "patients"
    return f"The probabilities assume {assumed}{_collection(manifest)}; among other {among} they would be others."


def _collection(manifest: Mapping[str, Any]) -> str:
    try:
        group = manifest["lesionlens"]["training"]["groups"][0]
        return f" (of the lesions that it was measured on {group['malignant'] / group['nodules']:.0%} were malignant)"
    except _MISSING:
        return ""
