"""The tree keeps its promises: lists, directions of import, nothing that executes data."""

from __future__ import annotations

import ast
import json
import re
import tomllib
from functools import cache
from pathlib import Path

import LesionLib
import pytest

ROOT = Path(__file__).resolve().parents[2]
LONG_TESTS = ROOT / "Testing" / "long_tests.txt"
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
# Inside a package: a room (folder, or file at its top) to the rooms of the same package that it may import.
WALLS = {
    "LesionLib": {
        "errors": "",
        "terminal": "",
        "faults": "errors terminal",
        "geometry": "errors",
        "io": "errors geometry",
        "metric": "",
        "networks": "errors metric",
        "sampling": "errors geometry networks",
        "uncertainty": "errors geometry",
        "explain": "errors geometry networks sampling uncertainty",
        "model": "errors geometry io metric networks sampling uncertainty",
        "inference": "errors geometry io metric networks sampling uncertainty explain model",
        "remote": "errors geometry io model sampling inference",
        "phantom": "geometry sampling",
    },
    "LesionClassifierLib": {
        "translation": "",
        "headless": "",
        "background": "",
        "logic": "",
        "scene": "translation",
        "setup": "translation",
        "parameters": "scene",
        "sample_data": "scene",
        "classification": "scene",
        "dicom_headers": "",
        "dicom_images": "dicom_headers",
        "export": "scene dicom_headers",
        "dicom_results": "scene dicom_headers dicom_images export",
        "panel": "scene background classification setup",
    },
    "LesionRetrievalLib": {
        "library": "",
        "server": "library",
        "libraries": "library server",
        "quiz": "library",
        "practice": "library quiz",
        "scene": "library",
        "parameters": "",
        "logic": "library libraries scene practice",
        "quiz_logic": "library libraries quiz scene logic practice",
        "panel": "library scene logic",
        "quiz_panel": "library quiz quiz_logic panel practice",
    },
    "LesionLensApp": {
        "options": "",
        "output": "",
        "loaded_model": "output",
        "slice_nodes": "",
        "plane_drawings": "",
        "display_windows": "",
        "similar_cases": "display_windows",
        "report": "output plane_drawings display_windows similar_cases",
        "models": "output",
        "quiz": "options output loaded_model case_table library web",
        "web": "display_windows",
        "reading": "",
        "case_table": "reading classify",
        "classify": "output loaded_model reading report slice_nodes display_windows similar_cases",
        "batch": "output loaded_model reading case_table",
        "library": "options output loaded_model reading case_table classify",
        "demo": "output loaded_model classify library",
        "serve": "options output reading classify display_windows similar_cases web",
        "cli": "options output loaded_model reading classify batch demo library models quiz serve",
    },
    "lesiontraining": {
        "losses": "",
        "optim": "",
        "evaluation": "",
        "data": "evaluation",
        "runs": "data evaluation",
        "reporting": "evaluation",
        "tasks": "data evaluation runs losses optim",
        "commands": "data evaluation reporting runs tasks",
        "nodules": "commands data evaluation reporting runs",
        "reproduce": "commands data evaluation reporting runs",
        "cli": "commands data runs nodules reproduce",
    },
}
# Where training meets the case library.
MAY_ALSO_IMPORT = {("lesiontraining", "commands"): {"LesionRetrievalLib"}}
# What knows no Slicer, no vtk and no Qt, and what knows no Qt.
WITHOUT_SLICER = [("LesionRetrievalLib", "library"), ("LesionRetrievalLib", "server"), ("LesionRetrievalLib", "quiz")]
WITHOUT_QT = ("LesionClassifierLib", "LesionRetrievalLib")
MAY_KNOW_QT = {"panel", "quiz_panel"}
SLICER = {"slicer", "vtk", "vtkmodules", "qt", "ctk"}
MODULES = {"LesionClassifier": ("LesionLib", "LesionClassifierLib"), "LesionRetrieval": ("LesionRetrievalLib",)}
SOURCES = [path for room in ROOMS.values() for path in sorted(room.rglob("*.py"))]
SOURCES += [ROOT / name / f"{name}.py" for name in MODULES]

_ARCHITECTURE = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")


def _folders() -> list[Path]:
    return sorted({path.parent for room in ROOMS.values() for path in room.rglob("*.py")})


@cache
def parsed(path: Path) -> ast.Module:
    """The file's syntax tree: one for all tests, to be read only."""
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def imported(path: Path, *, at_file_scope: bool = False) -> frozenset[str]:
    """Top-level names of everything the file imports; type-checking blocks do not count as file scope."""
    nodes = parsed(path).body if at_file_scope else ast.walk(parsed(path))
    names: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add((node.module or "").split(".")[0])
    return frozenset(names)


def file_scope_modules(path: Path) -> set[Path]:
    """Files of ours that a file imports when it is loaded."""
    found: set[Path] = set()
    for node in parsed(path).body:
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


def room_of(package: str, path: Path) -> str:
    """The folder, or the file at the top of the package, without its ending."""
    return path.relative_to(ROOMS[package]).parts[0].removesuffix(".py")


def rooms_imported(package: str, path: Path) -> set[str]:
    """Rooms of its own package that a file imports, anywhere in it."""
    found: set[str] = set()
    inside = path.relative_to(ROOMS[package].parent).parts[:-1]
    for node in ast.walk(parsed(path)):
        if not isinstance(node, ast.ImportFrom):
            continue
        above = inside[: len(inside) - (node.level - 1)] if node.level else ()
        parts = [*above, *(node.module or "").split(".")] if node.module else list(above)
        if parts and parts[0] == package:
            names = [parts[1]] if len(parts) > 1 else [alias.name for alias in node.names]
            found |= {
                name for name in names if (ROOMS[package] / name).is_dir() or (ROOMS[package] / f"{name}.py").is_file()
            }
    return found - {room_of(package, path)}


@pytest.mark.parametrize("package", sorted(ROOMS))
def test_imports_between_packages_flow_one_way(package):
    forbidden = set(ROOMS) - MAY_IMPORT[package] - {package}
    for path in ROOMS[package].rglob("*.py"):
        assert not imported(path) & forbidden - MAY_ALSO_IMPORT.get((package, room_of(package, path)), set()), path


@pytest.mark.parametrize("package", sorted(ROOMS))
def test_every_room_stands_in_the_table_and_imports_only_what_it_says(package):
    walls = {room: set(allowed.split()) for room, allowed in WALLS[package].items()}
    for path in ROOMS[package].rglob("*.py"):
        if path.parent == ROOMS[package] and path.name == "__init__.py":
            continue
        room = room_of(package, path)
        assert room in walls, path
        assert rooms_imported(package, path) <= walls[room], path


@pytest.mark.parametrize("package", sorted(ROOMS))
def test_no_two_rooms_import_each_other_however_far_round(package):
    walls = {room: set(allowed.split()) for room, allowed in WALLS[package].items()}
    while walls:
        lowest = [room for room, allowed in walls.items() if not allowed & set(walls)]
        assert lowest, walls
        for room in lowest:
            del walls[room]


@pytest.mark.parametrize("package", sorted(ROOMS))
def test_no_folder_holds_more_than_sixteen_files_and_each_says_what_it_is_for(package):
    for folder in {path.parent for path in ROOMS[package].rglob("*.py")}:
        assert len(list(folder.glob("*.py"))) <= 16, folder
        assert ast.get_docstring(ast.parse((folder / "__init__.py").read_text(encoding="utf-8"))), folder


def test_no_folder_of_tests_holds_more_than_sixteen_files():
    for folder in {path.parent for path in (ROOT / "Testing").rglob("*.py")}:
        assert len(list(folder.glob("*.py"))) <= 16, folder


@pytest.mark.parametrize("room", ["LesionLib", "lesiontraining"])
def test_the_backend_and_training_know_no_slicer(room):
    for path in ROOMS[room].rglob("*.py"):
        assert not imported(path) & SLICER, path


@pytest.mark.parametrize(("package", "room"), WITHOUT_SLICER)
def test_library_server_and_quiz_know_no_slicer_nor_does_anything_they_import(package, room):
    waiting = list((ROOMS[package] / room).rglob("*.py"))
    seen: set[Path] = set()
    while waiting:
        path = waiting.pop()
        if path not in seen:
            seen.add(path)
            assert not imported(path) & SLICER, path
            waiting += file_scope_modules(path)
    assert ROOMS["LesionLib"] / "errors.py" in seen


@pytest.mark.parametrize("package", WITHOUT_QT)
def test_only_panels_know_qt(package):
    for path in ROOMS[package].rglob("*.py"):
        if room_of(package, path) not in MAY_KNOW_QT:
            assert not imported(path) & {"qt", "ctk"}, path


def test_nothing_of_slicer_s_side_imports_torch_when_it_is_loaded():
    waiting = [ROOT / name / f"{name}.py" for name in MODULES]
    waiting += list(ROOMS["LesionClassifierLib"].rglob("*.py"))
    seen: set[Path] = set()
    while waiting:
        path = waiting.pop()
        if path in seen:
            continue
        seen.add(path)
        assert not imported(path, at_file_scope=True) & {"torch", "monai", "safetensors", "jsonschema"}, path
        waiting += file_scope_modules(path)
    assert ROOMS["LesionLib"] / "inference" / "results.py" in seen


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_no_data_is_ever_executed(path):
    tree = parsed(path)
    assert not imported(path) & {"pickle", "cPickle", "dill", "joblib", "shelve", "marshal"}
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        name = ast.unparse(call.func)
        assert name not in {"eval", "exec", "os.system", "torch.jit.load"}
        if name == "torch.load":
            assert any(k.arg == "weights_only" and ast.unparse(k.value) == "True" for k in call.keywords)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_every_import_names_its_package_from_the_top(path):
    nodes = ast.walk(parsed(path))
    assert [node.lineno for node in nodes if isinstance(node, ast.ImportFrom) and node.level] == []


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
    # In the build tree too, where Slicer's dashboard runs the modules' tests.
    assert re.search(
        r"file\(\s*COPY Resources/Models\s*DESTINATION \$\{CMAKE_BINARY_DIR\}/\$\{Slicer_QTSCRIPTEDMODULES_LIB_DIR\}",
        text,
    )


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


_PLACE = re.compile(r"^\| [^|]+\? \| `(?P<room>[^`]+)` \| `(?P<file>\w+)\.(?P<name>[\w.]+)`", flags=re.M)


def test_the_places_that_the_architecture_page_names_are_there():
    places = _PLACE.findall(_ARCHITECTURE)
    assert len(places) == 10
    for room, file, name in places:
        (folder,) = [folder for folder in _folders() if folder.as_posix().endswith(room)]
        text = (folder / f"{file}.py").read_text(encoding="utf-8")
        assert re.search(rf"^\s*(class|def) {name.split('.')[-1]}\b", text, flags=re.M), name


def test_every_stop_of_the_journeys_is_there():
    journeys = _ARCHITECTURE.split("## Journeys")[1].split("## ")[0]
    quoted = [text for text in re.findall(r"`([^`]+)`", journeys) if "/" not in text]
    stops = {name for text in quoted for name in re.findall(r"[A-Za-z_]\w+", text)}
    code = "\n".join(path.read_text(encoding="utf-8") for path in SOURCES)
    modules = {path.stem for path in SOURCES} | {path.parent.name for path in SOURCES}
    assert len(stops) > 30
    assert stops - modules - set(re.findall(r"^\s*(?:class|def) (\w+)", code, flags=re.M)) == set()


_STOPS = re.compile(r"(?P<stops>(?:`[^`]+`(?:, )?)+) \((?P<place>`[^`]+`)")


def test_every_stop_of_the_journeys_stands_in_the_file_that_is_named():
    journeys = _ARCHITECTURE.split("## Journeys")[1].split("## ")[0]
    placed = [
        (stop, place.strip("`"))
        for stops, place in _STOPS.findall(journeys)
        for stop in re.findall(r"`([^`]+)`", stops)
    ]
    assert len(placed) > 30
    for stop, place in placed:
        file = [path for path in SOURCES if path.with_suffix("").as_posix().endswith(f"/{place}")]
        files = file or [path for path in SOURCES if path.parent.as_posix().endswith(f"/{place}")]
        code = "\n".join(path.read_text(encoding="utf-8") for path in files)
        names = set(re.findall(r"[A-Za-z_]\w+", stop.partition("(")[0])) - {path.stem for path in files}
        missing = {name for name in names if not re.search(rf"^\s*(class|def) {name}\b", code, flags=re.M)}
        assert not missing, f"{stop} is not in {place}"


@pytest.mark.parametrize("start", [line for line in LONG_TESTS.read_text().splitlines() if line and line[0] != "#"])
def test_what_is_left_out_as_long_is_there(start):
    file, _, name = start.partition("::")
    assert f"def {name.partition('[')[0]}(" in (ROOT / file).read_text(encoding="utf-8")
