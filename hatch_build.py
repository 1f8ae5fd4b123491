"""Puts the viewer NiiVue, where `npm ci` has brought it, into the wheel with the licences of all that is in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

NIIVUE = Path("node_modules", "@niivue", "niivue", "dist", "niivue.umd.js")
VENDOR = Path("LesionLensApp", "web", "vendor")
NOT_IN_IT = {"axe-core", "@niivue/niivue"}  # for tests only; and NiiVue's own licence stands beside viewer.js


class ViewerHook(BuildHookInterface):
    """A wheel without it works; pages with slices then say what is missing."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        root = Path(self.root)
        if version == "editable" or not (root / NIIVUE).is_file():
            return
        build_data["force_include"][str(root / NIIVUE)] = str(VENDOR / NIIVUE.name)
        modules = root / "node_modules"
        for licence in sorted([*modules.glob("*/LICEN[CS]E*"), *modules.glob("@*/*/LICEN[CS]E*")]):
            package = licence.parent.relative_to(modules).as_posix()
            if package not in NOT_IN_IT:
                build_data["force_include"][str(licence)] = str(VENDOR / f"{package.replace('/', '-')}-LICENSE")
