"""What a nodule model says of itself: card and manifest, filled with what was measured; no number is typed by hand."""

from __future__ import annotations

from textwrap import indent
from typing import Any

from LesionLib.networks.nodule import NoduleNet

from lesiontraining.commands.export import bundle_section
from lesiontraining.commands.probe_card import manifest_head
from lesiontraining.data.contents import content_of_rows
from lesiontraining.data.sources import TRAINING_MARGIN_MM
from lesiontraining.nodules.build import Built
from lesiontraining.nodules.described import GROW_MM, SHIFT_MM, TURN_DEGREES
from lesiontraining.nodules.plan import NodulePlan
from lesiontraining.reporting.model_card import ModelCard, markdown_table, signed
from lesiontraining.runs.heat_maps import SHARES_GONE, MapChecks
from lesiontraining.runs.uncertainty import proportion_as_json

_FIGURES = """{lesions} nodules of {patients} patients, {protocol}, patients never across{moved}. The cross-validation is nested:
settings, standardisation, directions, calibration and the quantiles of the prediction sets are fitted without the fold that is
tested; every figure is of nodules whose patient the head had not seen. The head that is shipped is fitted on all of them in the
same way. What was tried before, and chosen from, is in the table of recipes. In brackets: 95 % interval over {draws} bootstrap
samples of patients. Differences are paired.

{tables}

The box of the first row is {boxes}, as in the baselines. *Loose boxes* are the same nodules drawn again, moved by up to
{shift:g} mm, grown by up to {grow:g} mm a side and turned by up to {turn:g} degrees; *boxes drawn larger* are grown only. Both are
seeded and none of those that are fitted on.

**Read this first:** {lead}

### What it was to reach

{aims}
"""
_UNLIKE = """- **Unlike the training nodules**: Mahalanobis' distance to their mean, warned of beyond the {quantile:.0%} point. Of
  held-out nodules {warned.hits} of {warned.n} were warned of ({warned.value:.1%}; 95 % interval {warned.low:.1%} to
  {warned.high:.1%}).{elsewhere} It is no guard against every misuse: a place in the lung that holds no nodule at all can look usual
  to it."""
_ELSEWHERE = (
    " Of {there.n} boxes of nodules' sizes at random places of bodies without nodules, which took no part in any fit, {there.hits} "
    "were warned of ({there.value:.1%}; {there.low:.1%} to {there.high:.1%})."
)
_HEAT = """- **Heat map, where it lies** (shipped head, tight boxes, every {every}th nodule, map of the answered class). It shows
  which places of the five planes, spread along their normals within the box, speak for the answer more than in the average
  nodule, not where disease is; what volume, HU and the box themselves say has no place in it:
{heat}"""
_MAP_CHECKS = """- **What the heat map is worth** (n = {checks.lesions} nodules of {checks.patients} patients, maps of the
  answered class; in brackets 95 % intervals over patients; occlusion, which users ask for by itself, on {checks.occluded} of them):

{where}

  Of all that the model looks at, {checks.chance} is nodule. The middle of the box asks no network, and the map is laid within the
  box: to say *where* a nodule is, a map has to beat that row. Taking away {shares} of what the model looks at lets the
  probability of its answer fall, in the mean:

{falls}

  The map, paired: {gains}. Rank correlation with the map of the same nodule in a loose box: {checks.jittered}; with the map after
  all weights were shuffled, where 0 is wanted: {checks.forgetful}. Gini index of the heat (0: even, 1: in one place):
  {checks.gini}.
"""
_MADE_BY = """`{command}`
Everything is seeded ({seed}); the frozen weights are those published. Settings chosen in each fold, and for what is shipped by the
same procedure: {chosen}.
"""


def card(plan: NodulePlan, built: Built) -> str:
    """The model card as Markdown."""
    text = plan.text
    low, high = _rounded(built.box_size_mm)
    return ModelCard(
        name=plan.name,
        version=plan.version,
        intended_use=text.intended_use,
        opening=f"**Question:** {text.question.strip()}\n\n**How:** {text.how.strip()}",
        figures=_figures(plan, built),
        reliability=_reliability(plan, built),
        made_by=_MADE_BY.format(command=text.command, seed=plan.seed, chosen=_chosen(built)),
        limits=[plan.filled(limit, low_mm=low, high_mm=high) for limit in text.limits],
        data=text.credit,
    ).as_markdown()


def _arguments(network: NoduleNet) -> dict[str, int]:
    """What builds it again."""
    given = {"classes": network.classes, "scores": network.scores, "space": network.projection.out_features}
    return given if network.likeness is None else {**given, "likeness": network.likeness.out_features}


def nodule_manifest(plan: NodulePlan, built: Built) -> tuple[dict[str, Any], dict[str, Any]]:
    """MONAI's bundle keys, and our section without what the export adds."""
    network, figures = built.network, built.figures
    there = None if built.elsewhere is None else proportion_as_json(built.elsewhere)
    section = bundle_section(
        architecture="nodule",
        arguments=_arguments(network),
        classes=[
            {"name": one.name, "description": one.description, "colorRGB": list(one.color)} for one in plan.classes
        ],
        box_size_mm=_rounded(built.box_size_mm),
        slice_distance_mm=_rounded(built.slice_distance_mm),
        segment_margin_mm=TRAINING_MARGIN_MM,
        class_prior=[1 / len(plan.classes)] * len(plan.classes) if plan.classes else (),
        training_content=content_of_rows(built.table.rows).to_manifest(),
        finding_site=plan.text.finding_site,
        training={
            "command": plan.text.command,
            **figures.as_json(),
            "reliability": {
                "coverage": figures.numbers.get("coverage", {}),
                "warned_as_unlike": {**proportion_as_json(built.warned), "expected": round(1 - plan.quantile, 4)},
                **({} if there is None else {"warned_elsewhere": there}),
            },
            **({} if built.map_checks is None else _maps_as_json(built.map_checks)),
        },
    )
    optional = {"scores": list(built.scores)} if built.scores else {}
    optional |= {"explanation": {"class": plan.explained}} if plan.explained else {}
    return manifest_head(plan), section | optional


def _maps_as_json(checks: MapChecks) -> dict[str, Any]:
    grad_cam = {group: of.as_json() for group, of in checks.heat.items()}
    return {"grad_cam": grad_cam, "map_checks": checks.as_json()}


def _figures(plan: NodulePlan, built: Built) -> str:
    count = len(built.moved_patients)
    moved = f" ({count} patient scanned twice was moved into one fold)" if count == 1 else ""
    return _FIGURES.format(
        lesions=len(built.table),
        patients=len(set(built.table.patients)),
        protocol=plan.text.protocol.strip(),
        moved=moved,
        draws=plan.draws,
        tables="\n\n".join(table.as_markdown() for table in built.figures.tables),
        boxes=plan.text.boxes,
        shift=SHIFT_MM,
        grow=GROW_MM,
        turn=TURN_DEGREES,
        lead=plan.text.lead.strip(),
        aims="\n".join(f"- {aim}." for aim in built.figures.aims),
    )


def _reliability(plan: NodulePlan, built: Built) -> str:
    parts = [f"- **{name}**: {text.rstrip('.')}." for name, text in built.figures.sentences.items()]
    there = "" if built.elsewhere is None else _ELSEWHERE.format(there=built.elsewhere)
    parts.append(_UNLIKE.format(quantile=built.ood.quantile, warned=built.warned, elsewhere=there))
    if built.map_checks is not None:
        heat = "\n".join(f"  - {group}: {of.message('nodule')}." for group, of in built.map_checks.heat.items())
        parts.append(_HEAT.format(every=plan.heat_every, heat=heat))
        parts.append(_map_checks(built.map_checks))
    if plan.text.remark:
        parts.append(plan.text.remark.strip())
    return "\n".join(parts)


def _map_checks(checks: MapChecks) -> str:
    where = [[name, str(checks.peak_inside[name]), str(checks.energy[name])] for name in checks.peak_inside]
    falls = [[name, str(fall)] for name, fall in checks.fall.items()]
    return _MAP_CHECKS.format(
        checks=checks,
        where=indent(markdown_table(["", "hottest voxel in the nodule", "share of the heat in it"], where), "  "),
        falls=indent(markdown_table(["taken away first", "fall of the probability"], falls), "  "),
        gains="; ".join(f"minus {name} {signed(gain)}" for name, gain in checks.fall_gain.items()),
        shares=", ".join(f"{share:.0%}" for share in SHARES_GONE),
    ).rstrip()


def _chosen(built: Built) -> str:
    words = [", ".join(f"{name} {value:g}" for name, value in setting.items()) for setting in built.chosen]
    return "; ".join(f"{word} ({words.count(word)} x)" for word in sorted(set(words)))


def _rounded(pair: tuple[float, float]) -> list[float]:
    return [round(value, 2) for value in pair]
