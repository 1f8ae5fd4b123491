"""What a model of ``lesiontrain probe`` says of itself: its card and its manifest, filled with what was measured."""

from __future__ import annotations

from typing import Any

from lesiontraining.commands.export import bundle_head, bundle_section
from lesiontraining.commands.probe import LOOSE, MODEL, Probed, printed_figures
from lesiontraining.commands.probe_plan import ProbePlan
from lesiontraining.data.contents import content_of_rows
from lesiontraining.data.sources import TRAINING_MARGIN_MM
from lesiontraining.evaluation.intervals import Difference, Estimate
from lesiontraining.evaluation.subgroups import SubgroupRow
from lesiontraining.reporting.model_card import ModelCard, markdown_table, shown

_OPENING = """**Question:** {question}

**How:** {how} Slice probabilities are averaged,
as DMRN does. Probabilities assume as many {classes} {lesion}s; in this collection {prevalence}.
"""
_FIGURES = """{lesions} {lesion}s of {patients} patients, {protocol}, patients never across{moved}.
Every figure is of {lesion}s whose patient the head had not seen; the shipped head is fitted on all of them in the same way.
In brackets: 95 % interval over {draws} bootstrap samples of patients. Label at probability 0.5.

{tables}

The box of the first row is {boxes}, as in the baselines; *loose boxes* are the same
{lesion}s drawn again, moved by up to {shift:g} mm, grown by up to {grow:g} mm a side and turned by up to {turn:g} degrees \
(seeded, not
used in fitting).

**Read this first:** {lead} {verdict}
"""
_RELIABILITY = """- **Prediction sets**, fitted for each class (conformal, {target_coverage:.0%} promised), checked on folds that \
took no part in the
  fit:
{coverage}
- **Unlike the training lesions**: the distance to the tenth nearest of them, warned of beyond the {quantile:.0%} point. Of
  held-out {lesion}s {warned.hits} of {warned.n} were warned of ({warned.value:.1%}; 95 % interval {warned.low:.1%} to
  {warned.high:.1%}; {expected:.0%} expected). It is no guard against every misuse: many places in a chest CT that hold no
  {lesion} at all look usual to it.
- **Grad-CAM, sanity check** (Adebayo et al., NeurIPS 2018): {sanity}
- **Grad-CAM, where it lies** (shipped head, tight boxes, map of the answered class). It shows where the model looked, not where
  disease is:
{heat}

{remark}
"""
_MADE_BY = """`{command}`
on: {device}. Strength of regularisation by inner patient-wise folds: C = {strength:g}. Temperature {temperature:.3f} (for the
figures above: fitted on the other folds). Bootstrap seed {seed}.
"""


def card(plan: ProbePlan, probed: Probed) -> str:
    """The model card as Markdown."""
    text = plan.text
    low, high = (round(edge, 2) for edge in probed.box_size_mm)
    return ModelCard(
        name=plan.name,
        version=plan.version,
        intended_use=text.intended_use,
        opening=_opening(plan, probed),
        figures=_figures(plan, probed),
        reliability=_reliability(plan, probed),
        made_by=_MADE_BY.format(
            command=text.command,
            device=probed.device,
            strength=probed.strength,
            temperature=probed.temperature,
            seed=plan.seed,
        ),
        limits=[plan.filled(limit, low_mm=low, high_mm=high) for limit in text.limits],
        data=text.credit,
    ).as_markdown()


def manifest_head(plan: ProbePlan) -> dict[str, Any]:
    """MONAI's bundle keys."""
    text = plan.text
    head = bundle_head(
        name=plan.name,
        version=plan.version,
        description=text.description,
        intended_use=text.intended_use.strip(),
        data_source=text.data_source,
        spec=plan.spec,
        class_names=plan.class_names,
        channels=text.channels,
    )
    ours = {name: getattr(text, name) for name in ("changelog", "task", "authors", "copyright", "references")}
    return {**head, **{name: value for name, value in ours.items() if value}}


def manifest_section(plan: ProbePlan, probed: Probed) -> dict[str, Any]:
    """Our section of the manifest, without what the export adds."""
    return bundle_section(
        architecture=plan.network,
        arguments={"classes": len(plan.classes), **plan.arguments},
        classes=[
            {"name": one.name, "description": one.description, "colorRGB": list(one.color)} for one in plan.classes
        ],
        box_size_mm=[round(edge, 2) for edge in probed.box_size_mm],
        slice_distance_mm=[round(distance, 2) for distance in probed.slice_distance_mm],
        # Temperature, thresholds and the first row of figures are those of the given boxes.
        segment_margin_mm=TRAINING_MARGIN_MM,
        class_prior=[1 / len(plan.classes)] * len(plan.classes),
        training_content=content_of_rows(probed.table.rows).to_manifest(),
        finding_site=plan.text.finding_site,
        training={
            "command": plan.text.command,
            "device": probed.device,
            "groups": [_group_as_json(plan, probed, name) for name in probed.groups],
            "reliability": {**probed.reliability.as_json(), "sanity_check": str(probed.sanity)},
            "grad_cam": {group: figures.as_json() for group, figures in probed.heat.items()},
        },
    )


def _opening(plan: ProbePlan, probed: Probed) -> str:
    labels = probed.table.labels
    shares = [f"{(labels == c).mean():.0%} are {name}" for c, name in enumerate(plan.class_names)]
    return _OPENING.format(
        question=plan.text.question.strip(),
        how=plan.filled(plan.text.how),
        classes=_as_many(plan.class_names),
        lesion=plan.text.lesion,
        prevalence=shares[1] if len(shares) == 2 else ", ".join(shares),
    )


def _as_many(names: tuple[str, ...]) -> str:
    """ "malignant as benign"; of more classes: "a, b and c"."""
    if len(names) == 2:
        return f"{names[1]} as {names[0]}"
    return f"{', '.join(names[:-1])} and {names[-1]}"


def _figures(plan: ProbePlan, probed: Probed) -> str:
    count = len(probed.moved_patients)
    who = "patient scanned twice was" if count == 1 else "patients scanned twice were"
    moved = f" ({count} {who} moved into one fold)" if count else ""
    return _FIGURES.format(
        lesions=len(probed.table),
        lesion=plan.text.lesion,
        patients=len(set(probed.table.patients)),
        protocol=plan.text.protocol.strip(),
        moved=moved,
        draws=plan.draws,
        tables="\n\n".join(_table(plan, probed, group) for group in probed.groups),
        boxes=plan.text.boxes,
        shift=plan.jitter.shift_mm,
        grow=plan.jitter.grow_mm,
        turn=plan.jitter.turn_degrees,
        lead=plan.text.lead.strip(),
        verdict=_verdict(probed),
    )


def _table(plan: ProbePlan, probed: Probed, group: str) -> str:
    """Figures of all methods on one group, and what sets the model apart."""
    names = printed_figures(len(plan.classes))
    rows = probed.groups[group]
    first = rows[MODEL]
    counts = probed.class_counts(group)
    of_classes = f"{counts[-1]} {plan.class_names[-1]}" if len(counts) == 2 else _of_classes(plan, counts)
    table = markdown_table(
        ["", *names.values()], ([name, *(_shown(row.figures[f]) for f in names)] for name, row in rows.items())
    )
    title = f"### {group[0].upper()}{group[1:]}: n = {first.lesions}, {of_classes}, {first.patients} patients"
    differences = "; ".join(f"minus {name} {_shown(d)}" for name, d in probed.differences[group].items())
    return f"{title}\n\n{table}" + (f"\n\nAUC of this model, paired: {differences}." if differences else "")


def _of_classes(plan: ProbePlan, counts: list[int]) -> str:
    return ", ".join(f"{count} {name}" for count, name in zip(counts, plan.class_names, strict=True))


def _verdict(probed: Probed) -> str:
    """What the paired differences allow to say, in words that follow from the numbers."""
    found = [
        f"on {group}, {_compared(of_group)} {name}"
        for group, differences in probed.differences.items()
        for name, of_group in differences.items()
    ]
    text = f"By AUC: {'; '.join(found)}. " if found else ""
    return f"{text}The row '{LOOSE}' is what a box drawn by hand can expect."


def _compared(of_group: Difference) -> str:
    if of_group.is_better():
        return "this model is better than"
    return "this model is worse than" if of_group.high < 0 else "no difference is shown from"


def _reliability(plan: ProbePlan, probed: Probed) -> str:
    fit = probed.reliability
    lesion = plan.text.lesion
    return _RELIABILITY.format(
        lesion=lesion,
        target_coverage=1.0 - plan.alpha,
        coverage="\n".join(f"  - {group}: {measured}" for group, measured in fit.coverage.items()),
        quantile=fit.ood.quantile,
        expected=1.0 - fit.ood.quantile,
        warned=fit.warned,
        sanity=probed.sanity,
        heat="\n".join(f"  - {group}: {figures.message(lesion)}." for group, figures in probed.heat.items())
        or "  - not measured: no lesion has a mask",
        remark=plan.text.remark.strip(),
    )


def _group_as_json(plan: ProbePlan, probed: Probed, group: str) -> dict[str, Any]:
    rows = probed.groups[group]
    first, counts = rows[MODEL], probed.class_counts(group)
    return {
        "name": group,
        "lesions": first.lesions,
        f"{plan.text.lesion}s": first.lesions,
        **dict(zip(plan.class_names[1:], counts[1:], strict=True)),
        "patients": first.patients,
        "figures": {name: _figures_as_json(plan, row) for name, row in rows.items()},
        "auc_difference": {name: _as_json(d) for name, d in probed.differences[group].items()},
    }


def _figures_as_json(plan: ProbePlan, row: SubgroupRow) -> dict[str, Any]:
    return {shown_as: _as_json(row.figures[name]) for name, shown_as in printed_figures(len(plan.classes)).items()}


def _as_json(estimate: Estimate) -> dict[str, float | int | None]:
    """The figure and its interval: on how many it rests is said once, of the group."""
    values = estimate.as_json()
    return {name: values[name] for name in ("value", "low", "high")}


def _shown(estimate: Estimate) -> str:
    return shown(estimate.value, estimate.low, estimate.high)
