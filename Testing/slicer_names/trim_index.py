"""Make ``names.json`` from a full index of Slicer's scripting interface.

    python Testing/slicer_names/trim_index.py INDEX.json [OUT.json]

INDEX.json has ``python`` (source file -> functions with the names of their arguments, classes with their methods) and
``qt_and_vtk`` (class -> header, bases, properties, signals, slots, invokable methods; or public methods and events). Kept are
the Python files of which something is used, and the classes that the modules or the stand-ins name, with their bases, whole.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("LesionClassifier", "LesionRetrieval", "Testing")
VERSION = "3D Slicer 5.12 (5.12.3) and the CTK that it pins"
_CLASS = re.compile(r"\b(?:vtkMRML|vtkSlicer|qMRML|qSlicer|ctk)\w+")
# Named by no code of ours: what our stand-ins of the application and of its parts stand for.
_BEHIND = {
    "qSlicerApplication",
    "qSlicerLayoutManager",
    "qSlicerModuleFactoryManager",
    "qSlicerModuleManager",
    "qSlicerScriptedLoadableModule",
    "qSlicerScriptedLoadableModuleWidget",
    "vtkMRMLLayoutLogic",
}


def namedClasses(folders: tuple[str, ...] = FOLDERS) -> set[str]:
    """Every word in the sources and .ui files that looks like a class of Slicer or CTK."""
    texts = [path for folder in folders for kind in ("*.py", "*.ui") for path in (ROOT / folder).rglob(kind)]
    return _BEHIND.union(*(_CLASS.findall(path.read_text(encoding="utf-8")) for path in texts))


def trimmed(index: dict, named: set[str]) -> dict:
    """The part of the index about these classes and their bases, and about the Python modules."""
    classes, waiting = {}, sorted(named)
    while waiting:
        name = waiting.pop()
        if name in index["qt_and_vtk"] and name not in classes:
            classes[name] = index["qt_and_vtk"][name]
            waiting += classes[name]["bases"]
    return {"version": VERSION, "python": index["python"], "classes": dict(sorted(classes.items()))}


def written(names: dict) -> str:
    """JSON with a line for each class and each Python file, so that a change shows as one."""
    parts = [f'"version": {json.dumps(names["version"])}']
    for kind in ("python", "classes"):
        lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(entry)}" for name, entry in names[kind].items())
        parts.append(f'"{kind}": {{\n{lines}\n}}')
    return "{\n" + ",\n".join(parts) + "\n}\n"


def main() -> None:
    """Read the index that the first argument names, write the second or else ``names.json``."""
    index = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    out = Path(sys.argv[2]) if len(sys.argv) > 2 else Path(__file__).with_name("names.json")
    out.write_text(written(trimmed(index, namedClasses())), encoding="utf-8")


if __name__ == "__main__":
    main()
