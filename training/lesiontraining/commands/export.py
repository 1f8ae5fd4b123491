"""``lesiontrain export``: one fold's fitted network as a verified model folder, its card from what was measured."""

from __future__ import annotations

import colorsys
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from LesionLib.errors import LesionLensError, OutputError
from LesionLib.io.swap import put_folder, staging_folder
from LesionLib.metric import COSINE
from LesionLib.model.bundle import (
    CLASS_NAME_PATTERN,
    SCHEMA_VERSION,
    TEMPERATURE,
    golden_logits,
    golden_probabilities,
    load_bundle,
    manifest_sha256,
    network_tensors,
)
from LesionLib.model.folder import CARD, LICENSE, MANIFEST, WEIGHTS, golden_case
from LesionLib.networks import LesionNet
from LesionLib.sampling.batches import crop_lesion
from LesionLib.sampling.inputs import KINDS, Spec, section_from_spec
from safetensors import SafetensorError
from safetensors.torch import save_file

from lesiontraining.commands.evaluate import REPORT_FOLDER
from lesiontraining.commands.plans import LesionClass, ModelText
from lesiontraining.data.sources import TRAINING_MARGIN_MM
from lesiontraining.evaluation.predictions import Predictions
from lesiontraining.reporting.figures import OF_POSITIVE
from lesiontraining.reporting.model_card import ModelCard, markdown_table, shown
from lesiontraining.reporting.report import TRUST, main_figures
from lesiontraining.runs.folder import FittedModel, FoldFolder, RunFolder
from lesiontraining.runs.reliability import Reliability, fold_reliability


def write_bundle(
    out: Path,
    *,
    head: Mapping[str, Any],
    lesionlens: Mapping[str, Any],
    network: LesionNet,
    spec: Spec,
    calibration: Mapping[str, torch.Tensor],
    card: str,
    license_text: str,
) -> str:
    """From a trained model to a bundle: manifest, safetensors, card, licence.

    Write the model folder ``out`` (replacing one that is there), load it once to verify it, return its SHA-256. The card's last
    line names the SHA-256 of the weights that it is of.

    ``head``: name, version, description and MONAI's other keys; ``lesionlens``: our section without input, files, golden
    (with ``scores`` for a network whose last columns are scores, see `LesionLib.model.scores`);
    ``calibration``: what the bundle's tensors hold besides weights: temperature, conformal quantile and the like.
    """
    with staging_folder(out.parent, prefix=f".{out.name}-") as staging:
        folder = staging / out.name
        (folder / WEIGHTS).parent.mkdir(parents=True)
        try:
            save_file({**network_tensors(network), **calibration}, folder / WEIGHTS)
        except SafetensorError as error:
            msg = f"the weights cannot be written to {out.parent} ({str(error).strip()[:120]}); make room on the disk."
            raise OutputError(msg) from error
        (folder / WEIGHTS).chmod(0o644)  # safetensors writes for the owner only
        of_these = f"{card.rstrip()}\n\nThis card is of `{WEIGHTS}` with SHA-256 `{_sha256(folder / WEIGHTS)}`.\n"
        for name, text in ((CARD, of_these), (LICENSE, license_text)):
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text(text, encoding="utf-8")
        temperature = float(calibration.get(TEMPERATURE, torch.ones(1)))
        scores = len(lesionlens.get("scores", ()))
        answer = golden_probabilities(network, spec, temperature, scores=scores) if lesionlens["classes"] else None
        section = {
            "schema": SCHEMA_VERSION,
            **lesionlens,
            "input": section_from_spec(spec),
            **({} if network.metric == COSINE else {"metric": network.metric}),
            "golden_logits": golden_logits(network, spec).round(5).tolist(),
            **({} if answer is None else {"golden_probabilities": answer.round(5).tolist()}),
            "files": {name: _sha256(folder / name) for name in (WEIGHTS, CARD, LICENSE)},
        }
        manifest = {**head, "lesionlens": section}
        manifest["sha256"] = manifest_sha256(manifest)
        (folder / MANIFEST).parent.mkdir()
        (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
        load_bundle(folder)
        put_folder(folder, out, staging / "replaced")
    return manifest["sha256"]


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


_FIGURES = """{lesions} of {patients} ({classes}), of {folds}, patients never across. The figures are of
all tested folds, each by its own network; this is the network of fold {fold}. In brackets: 95 % interval over {draws} bootstrap
samples of patients.

{table}

**{conclusion}**

{search}"""


def card(
    plan: ExportPlan, model: FittedModel, fold: FoldFolder, metrics: Mapping[str, Any], reliability: Reliability
) -> str:
    """The card of an exported model: every number from ``metrics.json`` and the fold's predictions, none typed by hand.

    Returns Markdown.
    """
    run = metrics["run"]
    section = ", ".join(f"{key} {value}" for key, value in model.input.items() if key != "kind")
    temperature = (
        f" Temperature {model.temperature:.3f}." if model.class_names else " It compares lesions and knows no classes."
    )
    lines = [
        *(f"- {name}: {text}" for name, text in reliability.figures.items()),
        *(f"- {n}" for n in reliability.notes),
    ]
    smallest, largest = model.box_size_mm
    thinnest, thickest = model.slice_distance_mm
    text = plan.text
    described = plan.description or "What it answers was not described."
    how = "" if text is None else f"{text.how.strip()} "
    made = "" if text is None else f"`{text.command.strip()}`, which runs "
    lead = "" if text is None else f"\n\n**Read this first:** {text.lead.strip()}"
    return ModelCard(
        name=plan.name,
        version=plan.version,
        intended_use=plan.intended_use,
        opening=f"{described if text is None else f'**Question:** {text.question.strip()}'}\n\n"
        f"**How:** {how}{model.architecture} on images of kind {model.input['kind']} ({section}); the probabilities of a lesion's "
        f"images are averaged.{temperature}",
        figures=_FIGURES.format(
            lesions=f"{metrics['lesions']} tested {'computed ' if plan.phantom else ''}lesions",
            patients=f"{metrics['patients']} {'phantom ' if plan.phantom else ''}patients",
            classes=", ".join(f"{count} {name}" for name, count in metrics["classes"].items()),
            folds=f"fold(s) {run['Folds']}",
            fold=fold.number,
            draws=metrics["bootstrap"]["draws"],
            table=_table(metrics["figures"], metrics.get("positive")),
            conclusion=metrics["conclusion"],
            search=_search(metrics["search"]),
        )
        + ("" if plan.seeds is None else f"\n\n{plan.seeds}")
        + _localised(fold.facts["figures"])
        + lead,
        reliability=f"Fitted on the validation lesions of fold {fold.number}, checked on its test lesions:\n\n"
        + ("\n".join(lines) or "- nothing could be fitted")
        + _prior(plan, model.class_names),
        made_by=f"{made}`{run['Command']}`; {run['Recipe']}; {run['Training time']}; {run['Software']}. Data fingerprint "
        f"`{run['Data fingerprint']}`.",
        limits=(
            *(() if text is None else text.limits),
            "Measured on the collection named below and nowhere else: other scanners, populations and diseases are not measured.",
            f"Boxes in training had edges from {smallest:g} to {largest:g} mm; slices were {thinnest:g} to {thickest:g} mm apart.",
            *metrics["notes"],
        ),
        data=(text.credit if text is not None else run["Data"])
        or "The owner of the table did not say where its lesions come from.",
    ).as_markdown()


def _prior(plan: ExportPlan, class_names: Sequence[str]) -> str:
    if not plan.class_prior:
        return ""
    assumed = ", ".join(f"{share:.0%} {name}" for share, name in zip(plan.class_prior, class_names, strict=True))
    return f"\n- probabilities assume {assumed}; among other lesions they would be others"


def _table(rows: Mapping[str, Mapping[str, Mapping[str, Any]]], positive: str | None) -> str:
    names = main_figures(positive) | TRUST
    if positive is not None:
        names |= {name: f"{text} ({positive})" for name, text in names.items() if name in OF_POSITIVE}
    lines = ([row, *(_shown(figures[f]) for f in names)] for row, figures in rows.items())
    return markdown_table(["", *names.values()], lines)


def _search(rows: list[Mapping[str, Any]]) -> str:
    """Among other patients' lesions: what a case library is for."""
    cross = [row for row in rows if row["rule"] == "cross"]
    if not cross:
        return ""
    lines = (
        [
            row["method"],
            str(row["queries"]),
            *(_shown(row["figures"][f]) for f in ("ap_a", "p_at_1", "p_at_k")),
            f"{row['chance']['ap_a']:.3f}",
        ]
        for row in cross
    )
    table = markdown_table(["", "queries", "mAP@10", "P@1", "P@10", "mAP@10 by chance"], lines)
    return f"Search among other patients' lesions (mAP@10 by definition A; chance is a random order):\n\n{table}"


def _localised(figures: Mapping[str, Any]) -> str:
    """Where the heat maps of test slices lie, of a recipe that measures it."""
    found = figures.get("localisation")
    if not isinstance(found, Mapping):
        return ""
    pointing, overlap = (found[name] for name in ("pointing", "gt_known_iou_50"))
    return (
        f"\n\nWhere its Grad-CAM of the true class lies, on {pointing['n']} test slices with a lesion: the hottest place is in the "
        f"lesion's box in {pointing['hits']}, {_percent(pointing)}; by chance it would in "
        f"{found['pointing_by_chance']:.1%}. The box around the hottest part and the lesion's share at least half of what both cover "
        f"in {overlap['hits']}, {_percent(overlap)}."
    )


def _percent(share: Mapping[str, Any]) -> str:
    return f"{share['hits'] / share['n']:.1%} (95 % interval {share['low']:.1%} to {share['high']:.1%})"


def _shown(figure: Mapping[str, Any]) -> str:
    return shown(figure["value"], figure["low"], figure["high"])


METRICS = "metrics.json"
# Okabe and Ito's palette, without black and yellow: told apart by colour-blind eyes, and seen on grey.
_COLORS = (
    (0.0, 0.45, 0.70), (0.84, 0.37, 0.0), (0.0, 0.62, 0.45), (0.80, 0.47, 0.65), (0.34, 0.71, 0.91), (0.90, 0.62, 0.0),
)  # fmt: skip
_CLASS_NAME = re.compile(CLASS_NAME_PATTERN)


class ExportError(LesionLensError):
    """A run that cannot become a model folder."""


@dataclass(frozen=True)
class SeedFigures:
    """AUC on the test lesions of trainings that differ by their seed.

    ``low``, ``high``: 95 % interval of the mean, patients drawn. ``aim``: the mean that was to be reached; None: none was set.
    """

    seeds: tuple[int, ...]
    auc: tuple[float, ...]
    mean: float
    low: float
    high: float
    aim: float | None = None

    def __str__(self) -> str:
        """One sentence for a card."""
        each = ", ".join(f"{auc:.3f} (seed {seed})" for seed, auc in zip(self.seeds, self.auc, strict=True))
        return (
            f"The same recipe with {len(self.seeds)} seeds: mean AUC {shown(self.mean, self.low, self.high)}; {each}. The network of "
            f"seed {self.seeds[0]} is the one that is shipped, which was settled before any was measured.{self._reached}"
        )

    @property
    def _reached(self) -> str:
        if self.aim is None:
            return ""
        missed = self.aim - self.mean
        return f" To reach was a mean of {self.aim:.3f}: " + ("reached." if missed <= 0 else f"missed by {missed:.3f}.")


@dataclass(frozen=True)
class ExportPlan:
    """What a model folder says that no run knows.

    ``text``: for a card in full. ``classes``: what each means, and its colour, in the order of the outputs. ``class_prior``: the
    share of each that the probabilities assume. ``seeds``: how much hangs on the seed. ``phantom``: it learned from computed
    lesions alone, so that every answer is to be warned of.
    """

    name: str
    version: str
    description: str
    intended_use: str
    license_text: str
    text: ModelText | None = None
    classes: tuple[LesionClass, ...] = ()
    class_prior: tuple[float, ...] = ()
    seeds: SeedFigures | None = None
    phantom: bool = False


def export(run: Path, out: Path, plan: ExportPlan, *, fold: int | None = None) -> str:
    """Write the model folder ``out`` from ``fold`` of ``run`` (default: the first finished); returns its SHA-256.

    Raises `ExportError` where the run was not evaluated, so that no model travels without its figures.
    """
    folder = _fold(run, fold)
    if not folder.has_network:
        msg = f"{run.name} was fitted without a network: it is measured beside others (lesiontrain evaluate) and is no model folder."
        raise ExportError(msg)
    metrics = _metrics(run, folder)
    model, network = FittedModel.load(folder.path)
    if model.input["kind"] not in KINDS:
        msg = (
            f"images of kind {model.input['kind']} are no CT, and a model folder answers lesions on CT only; the run and its "
            "report can be used as they are."
        )
        raise ExportError(msg)
    if model.facts.get("data", {}).get("organ_alone"):
        msg = (
            "it learned from CTs of which the organ alone was left (organ_mask), and a model folder answers on whole CTs: the "
            "pictures would be others. The run and its report can be used as they are."
        )
        raise ExportError(msg)
    for name in model.class_names:
        if not _CLASS_NAME.fullmatch(name):
            msg = f"{name!r} cannot be the name of a class: letters, digits, spaces, - and _, up to 64. Rename it in the table."
            raise ExportError(msg)
    reliability = fold_reliability(folder.predictions(), classifies=bool(model.class_names))
    calibration = {TEMPERATURE: torch.tensor([model.temperature]), **reliability.tensors()}
    return write_bundle(
        out,
        head=bundle_head(
            name=plan.name,
            version=plan.version,
            description=plan.description,
            intended_use=plan.intended_use,
            data_source=model.facts["data"]["credit"],
            spec=model.spec,
            class_names=model.class_names,
            channels=() if plan.text is None else plan.text.channels,
        )
        | said_in_head(plan.text),
        lesionlens=bundle_section(
            architecture=model.architecture,
            arguments=model.arguments,
            classes=_classes(plan, model.class_names),
            box_size_mm=model.box_size_mm,
            slice_distance_mm=model.slice_distance_mm,
            segment_margin_mm=TRAINING_MARGIN_MM,
            training_content=model.training_content,
            class_prior=plan.class_prior,
            finding_site=None if plan.text is None else plan.text.finding_site,
            phantom_hu=_mean_hu(folder.predictions()) if plan.phantom else None,
            training={
                "fold": folder.number,
                **folder.facts,
                "reliability": reliability.as_json(),
                "metrics": metrics,
                **({} if plan.seeds is None else {"seeds": asdict(plan.seeds)}),
            },
        ),
        network=network,
        spec=model.spec,
        calibration=calibration,
        card=card(plan, model, folder, metrics, reliability),
        license_text=plan.license_text,
    )


def said_in_head(text: ModelText | None) -> dict[str, Any]:
    """What MONAI's keys hold of a card's text, where it says it."""
    if text is None:
        return {}
    ours = {
        name: getattr(text, name) for name in ("changelog", "task", "authors", "copyright", "references", "data_source")
    }
    return {name: value for name, value in ours.items() if value}


def _mean_hu(predictions: Predictions) -> tuple[float, float]:
    """Lowest and highest mean HU among the boxes that took part in the fit."""
    known = predictions.mean_hu[predictions.split != "test"]
    return round(float(known.min()), 1), round(float(known.max()), 1)


def _classes(plan: ExportPlan, names: Sequence[str]) -> list[dict[str, Any]]:
    if not plan.classes:
        colors = _colors(len(names))
        return [{"name": n, "description": "", "colorRGB": list(c)} for n, c in zip(names, colors, strict=True)]
    said = [one.name for one in plan.classes]
    if said != list(names):
        msg = (
            f"the plan describes the classes {', '.join(said)}; the run answers with {', '.join(names)}, in this order."
        )
        raise ExportError(msg)
    return [{"name": one.name, "description": one.description, "colorRGB": list(one.color)} for one in plan.classes]


def _fold(run: Path, number: int | None) -> FoldFolder:
    finished = RunFolder(run).finished_folds()
    if number is None:
        return finished[0]
    chosen = [fold for fold in finished if fold.number == number]
    if not chosen:
        msg = f"fold {number} of {run} is not finished; finished are {', '.join(str(f.number) for f in finished)}."
        raise ExportError(msg)
    return chosen[0]


def _metrics(run: Path, fold: FoldFolder) -> dict[str, Any]:
    for path in (run / REPORT_FOLDER / METRICS, run / REPORT_FOLDER / f"split-{fold.number}" / METRICS):
        if path.is_file():
            return json.loads(path.read_text(encoding="utf-8"))
    msg = f"{run} was not evaluated, and no model travels without its figures; run lesiontrain evaluate {run} first."
    raise ExportError(msg)


def bundle_head(
    *,
    name: str,
    version: str,
    description: str,
    intended_use: str,
    data_source: str,
    spec: Spec,
    class_names: Sequence[str],
    channels: Sequence[str] = (),
) -> dict[str, Any]:
    """MONAI's bundle keys. ``channels``: what each of the input is, where it is a window on HU, -1 to 1."""
    return {
        "name": name,
        "version": version,
        "description": description,
        "intended_use": intended_use,
        "data_source": data_source,
        "network_data_format": {
            "inputs": {"image": _input_format(spec, channels)},
            "outputs": {"pred": _output_format(tuple(class_names))},
        },
    }


def bundle_section(  # noqa: PLR0913 - all by name, and three of them optional
    *,
    architecture: str,
    arguments: Mapping[str, Any],
    classes: Sequence[Mapping[str, Any]],
    box_size_mm: Sequence[float],
    slice_distance_mm: Sequence[float],
    segment_margin_mm: float,
    training: Mapping[str, Any],
    class_prior: Sequence[float] = (),
    training_content: Mapping[str, str] | None = None,
    finding_site: Mapping[str, str] | None = None,
    phantom_hu: tuple[float, float] | None = None,
) -> dict[str, Any]:
    """Our section of the manifest, without what `write_bundle` adds. Sizes and distances: smallest and largest in training.

    ``segment_margin_mm``: how far its boxes reach beyond a segment. ``class_prior``: the share of each class that the probabilities
    assume. ``training_content``: by which lesions of its training are recognised. ``finding_site``: where in the body its lesions
    lie. All three are left out where they are not known.
    ``phantom_hu``: lowest and highest mean of its boxes, where it learned from computed lesions alone.
    """
    optional = {
        "class_prior": list(class_prior),
        "training_content": dict(training_content or {}),
        "finding_site": dict(finding_site or {}),
        "phantom": {} if phantom_hu is None else {"mean_hu": list(phantom_hu)},
    }
    return {
        "architecture": architecture,
        "arguments": dict(arguments),
        "classes": list(classes),
        "aggregation": "mean_slice_probability",
        "box_size_mm": list(box_size_mm),
        "slice_distance_mm": list(slice_distance_mm),
        "segment_margin_mm": segment_margin_mm,
        **{name: value for name, value in optional.items() if value},
        "training": dict(training),
        "not_for_clinical_use": True,
    }


def _input_format(spec: Spec, names: Sequence[str]) -> dict[str, Any]:
    _, channels, *shape = crop_lesion(*golden_case(), spec).patches.shape
    windows = {"value_range": [-1, 1], "channel_def": {str(n): name for n, name in enumerate(names)}} if names else {}
    return {
        "type": "image",
        "format": "hounsfield",
        "modality": "CT",
        "num_channels": channels,
        "spatial_shape": shape,
        "dtype": "float32",
        "is_patch_data": True,
        **windows,
    }


def _output_format(class_names: tuple[str, ...]) -> dict[str, Any]:
    if not class_names:
        return {"type": "embedding"}
    names = {str(index): name for index, name in enumerate(class_names)}
    return {"type": "probabilities", "num_channels": len(names), "channel_def": names}


def _colors(count: int) -> list[tuple[float, float, float]]:
    if count <= len(_COLORS):
        return list(_COLORS[:count])
    return [tuple(round(c, 2) for c in colorsys.hsv_to_rgb(i / count, 0.75, 0.85)) for i in range(count)]
