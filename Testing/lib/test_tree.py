"""The tree keeps its promises: lists, directions of import, nothing that executes data."""

from __future__ import annotations

import ast
import json
import re
import tomllib
from pathlib import Path

import LesionLib
import pytest

ROOT = Path(__file__).resolve().parents[2]
ROOMS = {
    "LesionLib": ROOT / "LesionClassifier" / "LesionLib",
    "LesionClassifierLib": ROOT / "LesionClassifier" / "LesionClassifierLib",
    "LesionRetrievalLib": ROOT / "LesionRetrieval" / "LesionRetrievalLib",
    "LesionLensApp": ROOT / "LesionRetrieval" / "LesionLensApp",
    "lesiontraining": ROOT / "training" / "lesiontraining",
}
MAY_IMPORT = {
    "LesionLib": set(),
    "LesionClassifierLib": {"LesionLib"},
    "LesionRetrievalLib": {"LesionLib", "LesionClassifierLib"},
    "LesionLensApp": {"LesionLib", "LesionClassifierLib", "LesionRetrievalLib"},
    "lesiontraining": {"LesionLib"},
}
# Where training meets the case library.
MAY_ALSO_IMPORT = {("lesiontraining", "index_command.py"): {"LesionRetrievalLib"}}
SLICER = {"slicer", "vtk", "vtkmodules", "qt", "ctk"}
MODULES = {"LesionClassifier": ("LesionLib", "LesionClassifierLib"), "LesionRetrieval": ("LesionRetrievalLib",)}
SOURCES = [path for room in ROOMS.values() for path in sorted(room.rglob("*.py"))]
SOURCES += [ROOT / name / f"{name}.py" for name in MODULES]


def imported(path: Path, *, at_file_scope: bool = False) -> set[str]:
    """Top-level names of everything the file imports; type-checking blocks do not count as file scope."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = tree.body if at_file_scope else ast.walk(tree)
    names: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add((node.module or "").split(".")[0])
    return names


def file_scope_modules(path: Path) -> set[Path]:
    """Files of ours that a file imports when it is loaded."""
    found: set[Path] = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom):
            if node.level:
                base = path.parents[node.level - 1] / (node.module or "").replace(".", "/")
            else:
                head, *rest = (node.module or "").split(".")
                if head not in ROOMS:
                    continue
                base = ROOMS[head].joinpath(*rest)
            names = [base, *(base / alias.name for alias in node.names)]
            found |= {p for n in names for p in (n.with_suffix(".py"), n / "__init__.py") if p.is_file()}
    return found


@pytest.mark.parametrize("room", sorted(ROOMS))
def test_imports_flow_one_way(room):
    forbidden = set(ROOMS) - MAY_IMPORT[room] - {room}
    for path in ROOMS[room].rglob("*.py"):
        assert not imported(path) & forbidden - MAY_ALSO_IMPORT.get((room, path.name), set()), path


@pytest.mark.parametrize("room", ["LesionLib", "lesiontraining"])
def test_the_backend_and_training_know_no_slicer(room):
    for path in ROOMS[room].rglob("*.py"):
        assert not imported(path) & SLICER, path


def test_the_library_and_the_quiz_know_no_slicer_nor_does_anything_they_import():
    room = ROOMS["LesionRetrievalLib"]
    waiting = [
        *(path for path in room.glob("library*.py") if not path.stem.endswith("_panel")),
        *(room / f"quiz{part}.py" for part in ("", "_file", "_making", "_score", "_summary")),
    ]
    seen: set[Path] = set()
    while waiting:
        path = waiting.pop()
        if path not in seen:
            seen.add(path)
            assert not imported(path) & SLICER, path
            waiting += file_scope_modules(path)
    assert ROOMS["LesionLib"] / "errors.py" in seen


def test_nothing_of_slicer_s_side_imports_torch_when_it_is_loaded():
    waiting = [ROOT / name / f"{name}.py" for name in MODULES]
    waiting += list(ROOMS["LesionClassifierLib"].glob("*.py"))
    seen: set[Path] = set()
    while waiting:
        path = waiting.pop()
        if path in seen:
            continue
        seen.add(path)
        assert not imported(path, at_file_scope=True) & {"torch", "monai", "safetensors", "jsonschema"}, path
        waiting += file_scope_modules(path)
    assert ROOMS["LesionLib"] / "results.py" in seen


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_no_data_is_ever_executed(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert not imported(path) & {"pickle", "cPickle", "dill", "joblib", "shelve", "marshal"}
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        name = ast.unparse(call.func)
        assert name not in {"eval", "exec", "os.system", "torch.jit.load"}
        if name == "torch.load":
            assert any(k.arg == "weights_only" and ast.unparse(k.value) == "True" for k in call.keywords)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_a_file_stays_readable_in_one_sitting(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 600


@pytest.mark.parametrize("module", sorted(MODULES))
def test_cmake_lists_exactly_the_files_there_are(module):
    folder = ROOT / module
    text = (folder / "CMakeLists.txt").read_text()
    listed = {}
    for name in ("MODULE_PYTHON_SCRIPTS", "MODULE_PYTHON_RESOURCES"):
        (body,) = re.findall(rf"set\({name}\n(.*?)\)", text, flags=re.S)
        listed[name] = sorted(body.replace("${MODULE_NAME}", module).split())
    scripts = [f"{module}.py"]
    scripts += [p.relative_to(folder).as_posix() for lib in MODULES[module] for p in (folder / lib).rglob("*.py")]
    resources = [p.relative_to(folder).as_posix() for p in (folder / "Resources").rglob("*") if p.is_file()]
    # Templates lie beside the code that fills them.
    resources += [
        p.relative_to(folder).as_posix()
        for lib in MODULES[module]
        for p in (folder / lib).rglob("*")
        if p.is_file() and p.suffix not in (".py", ".pyc")
    ]
    assert listed["MODULE_PYTHON_SCRIPTS"] == sorted(scripts)
    assert listed["MODULE_PYTHON_RESOURCES"] == sorted(resources)
    assert f"Resources/Icons/{module}.png" in resources


def test_the_extension_builds_both_modules_and_installs_the_models():
    text = (ROOT / "CMakeLists.txt").read_text()
    for module in MODULES:
        assert f"add_subdirectory({module})" in text
    assert text.index("find_package(Slicer REQUIRED)") < text.index("add_subdirectory(LesionClassifier)")
    assert text.index("## NEXT_MODULE") < text.index("include(${Slicer_EXTENSION_GENERATE_CONFIG})")
    assert re.search(r"install\(\s*DIRECTORY Resources/Models", text)


def test_the_version_is_the_same_everywhere():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert version == LesionLib.__version__
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"## {version}" in (ROOT / "CHANGELOG.md").read_text()


def test_the_two_commands_stand_on_the_readme_s_first_screen():
    first_screen = (ROOT / "README.md").read_text().splitlines()[:25]
    assert any(line.startswith("make demo") for line in first_screen)
    assert any(line.startswith("make test") for line in first_screen)
    assert "exec make test" in (ROOT / ".ci" / "run").read_text()


def test_the_entry_for_slicer_s_extensions_index_agrees_with_the_build_file():
    entry = json.loads((ROOT / "Resources" / "LesionLens.json").read_text())
    build = (ROOT / "CMakeLists.txt").read_text()
    (homepage,) = re.findall(r'EXTENSION_HOMEPAGE "(.*?)"', build)
    (depends,) = re.findall(r'EXTENSION_DEPENDS "(.*?)"', build)
    assert re.search(r"project\((\w+)\)", build).group(1) == "LesionLens"
    assert entry["scm_url"] == homepage + ".git"
    assert entry["build_dependencies"] == depends.split()
    assert {"$schema", "category", "scm_url"} <= set(entry)
    for picture in re.findall(r"main/(Resources/\S+?\.png)", build):
        assert (ROOT / picture).is_file()
