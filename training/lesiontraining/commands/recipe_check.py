"""A recipe is read, not run: what may stand in a YAML or an option of ``lesiontrain fit``, checked before anything is built.

jsonargparse builds whatever class a ``class_path`` names, wherever a type leaves room for it: ``{class_path: subprocess.Popen}``
as a field of ``data.input`` would be a command. Here three walls stand one behind the other: the text of recipes and options
before the parser sees it, the parser's own list of what it may import, and what it made of both before a class is built.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import set_parsing_settings
from LesionLib.errors import LesionLensError

IMPORTABLE = ("lesiontraining", "lightning.pytorch")
_TASKS = ("lesiontraining",)
# Where a class may be named: the task, and what Lightning's trainer takes of its own classes.
_PLACES_OF_CLASSES = {
    "model": _TASKS,
    **dict.fromkeys(("trainer", "optimizer", "lr_scheduler"), IMPORTABLE),
}
_FILES = ("data.table", "data.cache", "model.init_args.weights")  # options that are places on the disk, read as data
_MAX_RECIPE_BYTES = 1024**2
_MAX_VALUES, _MAX_DEPTH = 20_000, 32
_RECIPE_SUFFIXES = {".yaml", ".yml", ".json", ".jsonnet", ".toml"}
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_IMPORT_PATH = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)+\Z")
_CLASS_KEYS = ("class_path", "init_args")


class RecipeError(LesionLensError):
    """A recipe or an option that would run something, or that is no recipe at all."""


def check_texts(arguments: Sequence[str]) -> None:
    """Refuse what ``arguments`` (LightningCLI's, recipes as ``--config=FILE``) must not hold. Raises `RecipeError`."""
    for name, value in _options(arguments):
        if name == "config":
            _check(_read(Path(value)), _Place(Path(value).name))
        else:
            index = _Place(f"--{name}")
            for key in name.split("."):
                index = index.at(key)
            _check(value, index)


def restrict_imports() -> None:
    """Let the parser import nothing but our tasks and Lightning's classes, and build no class where any value fits."""
    set_parsing_settings(
        import_path_denylist=["*"],
        import_path_allowlist=list(IMPORTABLE),
        instantiate_subclass_spec_in_any=False,
        config_read_mode_urls_enabled=False,
        config_read_mode_fsspec_enabled=False,
    )


def check_parsed(config: Mapping[str, Any]) -> None:
    """The same for what the parser made of recipes, options and environment, with all names of classes resolved."""
    values = {key: value for key, value in config.items() if key != "config"}
    _check(values, _Place("the options", parsed=True))


class _Place:
    """Where in a recipe a value stands: ``keys`` from its root, numbers of list items left out."""

    def __init__(self, source: str, keys: tuple[str, ...] = (), *, parsed: bool = False) -> None:
        self.source, self.keys, self.parsed = source, keys, parsed

    def at(self, key: str) -> _Place:
        return _Place(self.source, (*self.keys, key), parsed=self.parsed)

    @property
    def path(self) -> str:
        return ".".join(self.keys)

    def __str__(self) -> str:
        return f"{self.source}, {self.path}" if self.keys and not self.source.startswith("--") else self.source

    def importable(self) -> tuple[str, ...]:
        """Where classes named here may come from; none where only values stand."""
        first = self.keys[0] if self.keys else ""
        if first == "model" and self.path not in ("model", "model.class_path"):
            return ()
        return _PLACES_OF_CLASSES.get(first, ())


def _options(arguments: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Name and value of each option; a switch has an empty value."""
    waiting = list(arguments)
    while waiting:
        argument = waiting.pop(0)
        name, is_assigned, value = argument.partition("=")
        if not is_assigned and waiting and not waiting[0].startswith("--"):
            value = waiting.pop(0)
        yield name.lstrip("-").removesuffix("+"), value


def _read(path: Path) -> Any:
    try:
        with path.open("rb") as handle:
            content = handle.read(_MAX_RECIPE_BYTES + 1)
        if len(content) > _MAX_RECIPE_BYTES:
            msg = f"{path.name} is larger than {_MAX_RECIPE_BYTES // 1024} KiB; that is no recipe."
            raise RecipeError(msg)
        recipe = _loaded(content.decode("utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError, ValueError) as error:
        if isinstance(error, RecipeError):
            raise
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        msg = f"{path.name} is not a recipe that can be read: {reason}. Give a YAML of options and plain values."
        raise RecipeError(msg) from error
    if not isinstance(recipe, Mapping):
        msg = f"{path.name} is not a recipe: it holds no options by name."
        raise RecipeError(msg)
    return recipe


def _loaded(text: str) -> Any:
    return yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def _check(value: Any, index: _Place) -> None:
    left = [_MAX_VALUES]  # an alias can stand for a thousand values, which stand for a thousand each
    _check_value(value, index, left, _MAX_DEPTH)


def _check_value(value: Any, index: _Place, left: list[int], depth: int) -> None:
    left[0] -= 1
    if left[0] < 0 or depth < 0:
        msg = f"{index.source} holds more values, or deeper ones, than a recipe has."
        raise RecipeError(msg)
    if isinstance(value, Mapping) or hasattr(value, "as_dict"):
        _check_mapping(value if isinstance(value, Mapping) else value.as_dict(), index, left, depth)
    elif isinstance(value, list | tuple | set):
        for item in value:
            _check_value(item, index, left, depth - 1)
    elif isinstance(value, str):
        _check_text(value, index, left, depth)
    elif value is not None and not isinstance(value, bool | int | float) and not index.parsed:
        msg = (
            f"{index} is of a kind ({type(value).__name__}) that no option takes; give numbers, text, lists and names."
        )
        raise RecipeError(msg)


def _check_mapping(values: Mapping[Any, Any], index: _Place, left: list[int], depth: int) -> None:
    for key, value in values.items():
        if not isinstance(key, str):
            msg = f"{index}: {key!r} is not the name of an option."
            raise RecipeError(msg)
        inner = index
        for part in key.split("."):
            inner = inner.at(part.removesuffix("+"))
        _check_keys(inner)
        _check_value(value, inner, left, depth - 1)


def _check_keys(index: _Place) -> None:
    """What a mapping's key, or an option's name, may be."""
    for number, key in enumerate(index.keys):
        if index.parsed and key == "dict_kwargs" and number > 0:
            continue  # empty where nobody gave any: text is checked before
        if key.startswith("__") or key == "dict_kwargs" or (number == 0 and key == "config"):
            msg = f"{index}: {key} cannot stand in a recipe: it is read, not run."
            raise RecipeError(msg)
        if key in _CLASS_KEYS and not _Place("", index.keys[: number + (key == "class_path")]).importable():
            msg = f"{index} names a class where only values stand (numbers, text, yes or no, lists): a recipe is read, not run."
            raise RecipeError(msg)


def _check_text(text: str, index: _Place, left: list[int], depth: int) -> None:
    _check_keys(index)
    if index.keys and index.keys[-1] == "class_path":
        _check_class(text, index)
        return
    if "${" in text or "!!python" in text:
        msg = f"{index} is {text[:80]!r}, which asks for something to be computed: a recipe is read, not run."
        raise RecipeError(msg)
    if index.path in _FILES or index.parsed:
        return
    if _IMPORT_PATH.match(text) and index.importable() and not _is_below(text, index.importable()):
        _refuse_class(text, index)
    if Path(text).suffix.lower() in _RECIPE_SUFFIXES or (len(index.keys) == 1 and _is_file(text)):
        msg = f"{index} names the file {Path(text).name!r}; write its options into the recipe, or give it by --config."
        raise RecipeError(msg)
    if any(mark in text for mark in "{[:"):
        try:
            inner = _loaded(text)
        except (yaml.YAMLError, RecursionError, ValueError):
            return  # no text that the parser could make more of
        if not isinstance(inner, str):
            _check_value(inner, index, left, depth - 1)


def _check_class(text: str, index: _Place) -> None:
    if not (_IDENTIFIER.match(text) or (_IMPORT_PATH.match(text) and _is_below(text, index.importable()))):
        _refuse_class(text, index)


def _refuse_class(text: str, index: _Place) -> None:
    known = " or ".join(f"{package}." for package in index.importable())
    msg = f"{index} is {text[:80]!r}; a recipe names classes of {known} only: it is read, not run."
    raise RecipeError(msg)


def _is_below(text: str, packages: Sequence[str]) -> bool:
    return any(text.startswith(f"{package}.") for package in packages)


def _is_file(text: str) -> bool:
    try:
        return Path(text).is_file()
    except (OSError, ValueError):
        return False
