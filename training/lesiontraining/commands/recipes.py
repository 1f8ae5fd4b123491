"""``lesiontrain recipes``: the recipes that come along, each with its paper, the data that one must bring, hardware and time."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path


def brought_along(name: str) -> Path:
    """A folder of YAML files that comes with this package: beside it in the sources, inside it where a wheel was installed."""
    package = Path(__file__).resolve().parents[1]
    inside = package / name
    return inside if os.path.isdir(inside) else package.parent / name


_CONFIGS = brought_along("configs")
ROOMS = ("paper", "public", "comparators")


@dataclass(frozen=True)
class Recipe:
    """``name``: what ``--config`` takes. ``paper``, ``data``, ``time``: as the head of its file says."""

    name: str
    path: Path
    paper: str
    data: str
    time: str


def recipes() -> list[Recipe]:
    """Those of the papers, those for two cores, and what the papers compare with; without the tiny ones of the tests."""
    return [_recipe(path) for room in ROOMS for path in sorted((_CONFIGS / room).glob("*.yaml"))]


def recipe_file(name: str) -> Path | None:
    """The file of a recipe by its name, with its room before it or without (also ``tiny/``); None for a name unknown."""
    return _by_name().get(name)


def recipe_names() -> list[str]:
    """All that `recipe_file` knows."""
    return sorted(_by_name())


def _by_name() -> dict[str, Path]:
    files = {f"{path.parent.name}/{path.stem}": path for path in _CONFIGS.glob("*/*.yaml")}
    return files | {recipe.name: recipe.path for recipe in recipes()}


def _recipe(path: Path) -> Recipe:
    head = dict(re.findall(r"^# (paper|data|time): (.*)$", path.read_text(encoding="utf-8"), flags=re.M))
    return Recipe(path.stem, path, head["paper"], head["data"], head["time"])
