"""The card, the licence and the manifest of ``lung-nodule-malignancy``, filled with what was measured."""

from __future__ import annotations

from typing import Any

from lesiontraining.linear_probe.figures import METRICS, ReliabilityFit
from lesiontraining.linear_probe.recipe import ARCHITECTURE, ARGUMENTS, LOOSE, Group, Recipe, Trained

NAME, VERSION = "lung-nodule-malignancy", "1.2.0"
COMMAND = "lesiontrain lung-nodules --data lung_nodules --imagenet mobilenet_v2.pth --out Resources/Models/lung-nodule-malignancy"
INTENDED_USE = (
    "Research and teaching on solid, part-solid and ground-glass lung nodules on chest CT. Not for diagnosis, screening or "
    "any decision about a patient."
)
LICENSE_TEXT = """The weights of this model are licensed under the Apache License, Version 2.0
(https://www.apache.org/licenses/LICENSE-2.0).

They were made from
- LIDC-IDRI, CC BY 3.0 (https://creativecommons.org/licenses/by/3.0/):
  Armato III SG, McLennan G, Bidaut L, et al. Data From LIDC-IDRI. The Cancer Imaging Archive, 2015.
  doi:10.7937/K9/TCIA.2015.LO9QL9SX. Armato SG et al. The Lung Image Database Consortium (LIDC) and Image Database
  Resource Initiative (IDRI). Medical Physics 38:915-931, 2011. Nodules were cut out, rated and resampled.
- MobileNetV2 ImageNet weights, Apache License 2.0, Google Coral. The classifier layer was replaced.

Research use only, not for diagnosis. Provided "as is", without warranty of any kind.
"""
_CARD = """# lung-nodule-malignancy {version}

**Research use only, not for diagnosis.** {intended_use}

**Question:** would at least two of the LIDC readers have rated this nodule above 3 of 5 for malignancy? The answer is a
reading of the image, not histology: few LIDC nodules have any.

**How:** every axial slice through the box becomes a {size} x {size} picture at {spacing} mm (box plus {margin:g} mm, filled
with {fill:g} HU beyond; three HU windows as channels). MobileNetV2, ImageNet weights as published and not changed (stem
stride 1, output stride 8: an 8 x 8 map), then a linear head on the global average. Slice probabilities are averaged,
as DMRN does. Probabilities assume as many malignant as benign nodules; in this collection {prevalence:.0%} are malignant.

## Figures

{nodules} nodules of {patients} patients, LIDC-IDRI. Eight folds along the LUNA16 subsets, patients never across{moved}.
Every figure is of nodules whose patient the head had not seen; the shipped head is fitted on all of them in the same way.
In brackets: 95 % interval over {draws} bootstrap samples of patients. Label at probability 0.5.

{tables}
The box of the first row is the tight box of the readers' mask, as in the baselines; *loose boxes* are the same
nodules drawn again, moved by up to {shift:g} mm, grown by up to {grow:g} mm a side and turned by up to {turn:g} degrees (seeded, not
used in fitting).

**Read this first:** size alone answers almost as well. Malignant nodules of this collection are larger, and the readers
knew. {verdict}

## How far to rely on an answer

- **Prediction sets**, fitted for each class (conformal, {promised:.0%} promised), checked on folds that took no part in the
  fit:
{coverage}
- **Unlike the training lesions**: the distance to the tenth nearest of them, warned of beyond the {ood_quantile:.0%} point. Of
  held-out nodules {warned.hits} of {warned.n} were warned of ({warned_value:.1%}; 95 % interval {warned.low:.1%} to
  {warned.high:.1%}; {ood_expected:.0%} expected). It is no guard against every misuse: many places in a chest CT that hold no
  nodule at all look usual to it.
- **Grad-CAM, sanity check** (Adebayo et al., NeurIPS 2018): {sanity}
- **Grad-CAM, where it lies** (shipped head, tight boxes, map of the answered class). It shows where the model looked, not where
  disease is:
{heat}

Tuning the whole network on the nodules instead of the head alone is not part of this model and its gain is not measured.

## Made by

`{command}`
on: {device}. Strength of regularisation by inner patient-wise folds: C = {strength:g}. Temperature {temperature:.3f} (for the
figures above: fitted on the other folds). Bootstrap seed {seed}.

## Limits

- Nodules of 3 to about 40 mm in lung. A box with an edge outside {low:g} to {high:g} mm, or a lesion unlike those of training, gets
  no answer; other lesions that look usual to the model get one, and it means nothing.
- Made for tight boxes: 2 mm more around a segment and half of the lesions no longer find themselves in a library.
- The cut-outs hold 5 to 19 voxels around the nodule, fewer around large ones, hence the margin of {margin:g} mm: a
  wider one would have told the model the size by the missing edge.
- Not measured: other scanners and kernels than LIDC's, contrast phases, other populations, histology, calibration at
  another prevalence, agreement with radiologists.
- Around nodules over 12 mm the loose boxes reach beyond the cut-out, where its edge is repeated; the row for 5-12 mm
  is hardly touched by this.
- Retrieval with this model compares ImageNet features: alike in appearance and size. Its quality is not measured here.

## Data and licence

LIDC-IDRI, CC BY 3.0, doi:10.7937/K9/TCIA.2015.LO9QL9SX (Armato et al., Med Phys 38:915, 2011). ImageNet start:
MobileNetV2, Google Coral, Apache-2.0. Weights: Apache-2.0; see LICENSE.
"""


def card(trained: Trained, recipe: Recipe) -> str:
    """The model card as Markdown."""
    everyone = trained.groups[0]
    moved = (
        f" ({len(trained.moved_patients)} patient scanned twice was moved into one fold)"
        if trained.moved_patients
        else ""
    )
    return _CARD.format(
        version=VERSION,
        intended_use=INTENDED_USE,
        size=recipe.spec.size,
        spacing=recipe.spec.spacing_mm,
        margin=recipe.spec.margin_mm,
        low=round(trained.box_size_mm[0], 2),
        high=round(trained.box_size_mm[1], 2),
        fill=recipe.spec.fill_hu,
        prevalence=everyone.malignant / everyone.nodules,
        nodules=everyone.nodules,
        patients=everyone.patients,
        moved=moved,
        draws=recipe.bootstrap_draws,
        tables="\n".join(_table(group) for group in trained.groups),
        shift=recipe.looseness.shift_mm,
        grow=recipe.looseness.grow_mm,
        turn=recipe.looseness.turn_degrees,
        verdict=_verdict(trained.groups),
        command=COMMAND,
        device=trained.device,
        strength=trained.strength,
        temperature=trained.temperature,
        seed=recipe.seed,
        **_reliability_fields(trained.reliability),
        heat="\n".join(f"  - {group}: {figures}." for group, figures in trained.heat.items()),
    )


def _reliability_fields(fit: ReliabilityFit) -> dict[str, Any]:
    return {
        "promised": 1.0 - fit.conformal.alpha,
        "coverage": "\n".join(f"  - {group}: {measured}" for group, measured in fit.coverage.items()),
        "ood_quantile": fit.ood.quantile,
        "ood_expected": 1.0 - fit.ood.quantile,
        "warned": fit.warned,
        "warned_value": fit.warned.value,
        "sanity": fit.sanity,
    }


def manifest_head() -> dict[str, Any]:
    """MONAI's bundle keys."""
    return {
        "name": NAME,
        "version": VERSION,
        "changelog": {
            "1.0.0": "first release",
            "1.1.0": "dilation as in ResNet; prediction sets, unlike-training distance",
            "1.2.0": "says its boxes' margin, its prior and what it learned from; weights and figures of 1.1.0",
        },
        "task": "Lung nodule malignancy as rated by readers, from a box on CT",
        "description": "benign or malignant as LIDC readers would rate it; MobileNetV2 on the axial slices of a box",
        "authors": "The LesionLens developers",
        "copyright": "Apache-2.0; see LICENSE",
        "data_source": "LIDC-IDRI, doi:10.7937/K9/TCIA.2015.LO9QL9SX",
        "intended_use": INTENDED_USE,
        "references": ["Armato SG et al. Medical Physics 38:915-931, 2011", "Sandler M et al. MobileNetV2, CVPR 2018"],
        "network_data_format": {
            "inputs": {
                "image": {
                    "type": "image",
                    "format": "hounsfield",
                    "modality": "CT",
                    "num_channels": 3,
                    "spatial_shape": [64, 64],
                    "dtype": "float32",
                    "value_range": [-1, 1],
                    "is_patch_data": True,
                    "channel_def": {"0": "lung window", "1": "soft-tissue window", "2": "calcium window"},
                }
            },
            "outputs": {
                "pred": {"type": "probabilities", "num_channels": 2, "channel_def": {"0": "benign", "1": "malignant"}}
            },
        },
    }


def manifest_section(trained: Trained) -> dict[str, Any]:
    """Our section of the manifest, without what the export adds."""
    return {
        "architecture": ARCHITECTURE,
        "arguments": ARGUMENTS,
        "classes": [
            {
                "name": "benign",
                "description": "fewer than two readers rated above 3 of 5",
                "colorRGB": [0.18, 0.55, 0.34],
            },
            {
                "name": "malignant",
                "description": "at least two readers rated above 3 of 5",
                "colorRGB": [0.80, 0.20, 0.16],
            },
        ],
        "aggregation": "mean_slice_probability",
        "box_size_mm": [round(edge, 2) for edge in trained.box_size_mm],
        "slice_distance_mm": [round(distance, 2) for distance in trained.slice_distance_mm],
        "segment_margin_mm": 0.0,  # temperature, thresholds and the first row of figures are those of the tight boxes
        "class_prior": [0.5, 0.5],
        "training": {
            "command": COMMAND,
            "device": trained.device,
            "groups": [_group_as_json(g) for g in trained.groups],
            "reliability": trained.reliability.as_json(),
            "grad_cam": {group: figures.as_json() for group, figures in trained.heat.items()},
        },
        "not_for_clinical_use": True,
    }


def _table(group: Group) -> str:
    lines = [
        f"### {group.name[0].upper()}{group.name[1:]}: n = {group.nodules}, {group.malignant} malignant, {group.patients} patients\n",
        "| | " + " | ".join(METRICS) + " |",
        "|---|" + "---|" * len(METRICS),
    ]
    lines += [
        f"| {row} | " + " | ".join(str(figures[m]) for m in METRICS) + " |" for row, figures in group.rows.items()
    ]
    differences = "; ".join(f"minus {row} {figure}" for row, figure in group.auc_difference.items())
    return "\n".join(lines) + f"\n\nAUC of this model, paired: {differences}.\n"


def _verdict(groups: list[Group]) -> str:
    """What the paired differences allow to say, in words that follow from the numbers."""
    sentences = []
    for group in groups:
        for row, figure in group.auc_difference.items():
            if figure.low > 0:
                said = "this model is better than"
            elif figure.high < 0:
                said = "this model is worse than"
            else:
                said = "no difference is shown from"
            sentences.append(f"on {group.name}, {said} {row}")
    return f"By AUC: {'; '.join(sentences)}. The row '{LOOSE}' is what a box drawn by hand can expect."


def _group_as_json(group: Group) -> dict[str, Any]:
    return {
        "name": group.name,
        "nodules": group.nodules,
        "malignant": group.malignant,
        "patients": group.patients,
        "figures": {row: {m: f.as_json() for m, f in figures.items()} for row, figures in group.rows.items()},
        "auc_difference": {row: figure.as_json() for row, figure in group.auc_difference.items()},
    }
