"""A recipe is read, not run: whatever asks for more than values is refused in one line, before anything is imported or built."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import yaml
from lesion_tables import write_lesion_table
from lesiontraining.cli import main
from lesiontraining.commands.fit import recipe_cli
from lesiontraining.runs.folder import FoldFolder
from repository import ROOT

pytestmark = pytest.mark.filterwarnings("ignore")
CONFIGS = sorted((ROOT / "training" / "configs").glob("*/*.yaml"))
TINY = next(path for path in CONFIGS if (path.parent.name, path.stem) == ("tiny", "cross-entropy"))

# A module whose import leaves a file behind, with everything that a class path could lead to.
CANARY = """
import os
from pathlib import Path
(Path(os.environ["CANARY"]) / "imported").touch()
from lightning.pytorch.callbacks import Callback
from lesiontraining.data.data_module import LesionDataModule
def touch(*args, **kwargs):
    (Path(os.environ["CANARY"]) / "called").touch()
class Anything:
    def __init__(self, **kwargs):
        touch()
class Spy(Callback):
    def __init__(self):
        touch()
"""


@pytest.fixture
def canary(tmp_path, monkeypatch) -> Path:
    """The folder in which a file appears as soon as anything ran."""
    folder = tmp_path / "canary"
    folder.mkdir()
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "canary_module.py").write_text(CANARY)
    monkeypatch.syspath_prepend(tmp_path / "modules")
    monkeypatch.setenv("CANARY", str(folder))
    monkeypatch.chdir(tmp_path)
    yield folder
    sys.modules.pop("canary_module", None)


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> Path:
    return write_lesion_table(tmp_path_factory.mktemp("table"))


def refused(capsys, canary: Path, table: Path, out: Path, *arguments: str, config: Path = TINY, most=700) -> str:
    """The one line with which ``lesiontrain fit`` refuses ``arguments``; nothing ran, nothing was made."""
    code = main(["fit", "--config", str(config), "--data.table", str(table), "--out", str(out), *arguments])
    said = capsys.readouterr()
    assert list(canary.iterdir()) == []
    assert "canary_module" not in sys.modules
    assert code == 2
    lines = said.err.splitlines()
    (line,) = [text for text in lines if text.startswith("lesiontrain: error: ")]
    assert line == lines[-1]
    assert len(line) < most
    assert not out.exists() or not any(path.is_file() for path in out.rglob("*"))
    return line


def with_changes(folder: Path, change) -> Path:
    recipe = yaml.safe_load(TINY.read_text())
    change(recipe)
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return path


def a_command(folder: Path) -> dict:
    return {"class_path": "subprocess.Popen", "init_args": {"args": ["touch", str(folder / "called")]}}


def into(*keys: str):
    """A change of a recipe that puts a command where ``keys`` lead."""

    def change(recipe: dict, command: dict) -> None:
        place = recipe
        for key in keys[:-1]:
            place = place.setdefault(key, {})
        place[keys[-1]] = command

    return change


def in_a_list(*keys: str):
    return lambda recipe, command: into(*keys)(recipe, [1.0, [command]])


IN_A_RECIPE = {
    "a field of the input": into("data", "input", "kind"),
    "another field of the input": into("data", "input", "anything"),
    "the input itself": into("data", "input"),
    "an option of the reader": into("data", "reader_options", "columns"),
    "the options of the reader themselves": into("data", "reader_options"),
    "an argument of the network": into("model", "init_args", "arguments", "depth"),
    "the arguments of the network themselves": into("model", "init_args", "arguments"),
    "a list in the input": in_a_list("data", "input", "windows_hu"),
    "a list in the arguments": in_a_list("model", "init_args", "arguments", "sizes"),
    "deep inside": into("data", "input", "a", "b", "c", "d"),
    "the task": into("model"),
    "the weights": into("model", "init_args", "weights"),
    "a callback": lambda recipe, command: recipe["trainer"].update(callbacks=[command]),
    "a single callback": into("trainer", "callbacks"),
    "a logger": into("trainer", "logger"),
    "a logger's argument": lambda recipe, command: recipe["trainer"].update(
        logger={"class_path": "lightning.pytorch.loggers.CSVLogger", "init_args": {"save_dir": command}}
    ),
    "a plugin": lambda recipe, command: recipe["trainer"].update(plugins=[command]),
    "the strategy": into("trainer", "strategy"),
    "the profiler": into("trainer", "profiler"),
    "the accelerator": into("trainer", "accelerator"),
    "the optimiser": into("optimizer"),
    "the scheduler": into("lr_scheduler"),
    "the checkpoint's monitor": into("checkpoint", "monitor"),
    "a key with dots": lambda recipe, command: recipe.update({"data.input.x": command}),
    "text that the parser would read": lambda recipe, command: recipe["data"]["input"].update(kind=str(command)),
    "text in text": lambda recipe, command: recipe["data"]["input"].update(kind=str([str(command)])),
    "escaped text": lambda recipe, command: recipe["data"]["input"].update(
        kind='{"class\\x5fpath": "canary_module.Anything"}'
    ),
}


@pytest.mark.parametrize("name", IN_A_RECIPE)
def test_a_command_in_a_recipe_is_refused(name, canary, table, tmp_path, capsys):
    path = with_changes(tmp_path, lambda recipe: IN_A_RECIPE[name](recipe, a_command(canary)))
    line = refused(capsys, canary, table, tmp_path / "run", config=path)
    assert "read, not run" in line
    assert "mine.yaml" in line


@pytest.mark.parametrize(
    "named",
    [
        "os.system", "subprocess.Popen", "builtins.eval", "canary_module.Anything", "canary_module.Spy", "torch.load",
        "torch.optim.SGD", "lesiontraining_evil.Task", "lightning.pytorchx.Callback", "lightning.fabric.Fabric",
        "importlib.import_module", "lightning.pytorch..callbacks.EarlyStopping", "__main__.x", "os.system\n", "a b", "",
    ],
)  # fmt: skip
@pytest.mark.parametrize("where", ["model", "callbacks", "optimizer"])
def test_a_class_from_elsewhere_is_refused(named, where, canary, table, tmp_path, capsys):
    def change(recipe: dict) -> None:
        if where == "model":
            recipe["model"]["class_path"] = named
        elif where == "callbacks":
            recipe["trainer"]["callbacks"] = [{"class_path": named}]
        else:
            recipe[where] = {"class_path": named}

    line = refused(capsys, canary, table, tmp_path / "run", config=with_changes(tmp_path, change))
    assert "a recipe names classes of" in line


@pytest.mark.parametrize(
    "options",
    [
        ["--data.input.kind={class_path: canary_module.Anything}"],
        ["--data.input.kind", '{"class_path": "canary_module.Anything"}'],
        ["--data.input={class_path: canary_module.Anything}"],
        ["--data.input.class_path=canary_module.Anything"],
        ["--data.reader_options.x.class_path", "canary_module.Anything"],
        ["--data.reader_options={x: [{class_path: canary_module.Anything}]}"],
        ["--model.init_args.arguments.depth={class_path: canary_module.Anything}"],
        ["--model.init_args.arguments.class_path=canary_module.Anything"],
        ["--model=canary_module.Anything"],
        ["--model.class_path=canary_module.Anything"],
        ["--trainer.callbacks=canary_module.Spy"],
        ["--trainer.callbacks+=canary_module.Spy"],
        ["--trainer.callbacks.class_path=canary_module.Spy"],
        ["--trainer.callbacks=[{class_path: canary_module.Spy}]"],
        ["--trainer.logger=canary_module.Spy"],
        ["--trainer.strategy.class_path=canary_module.Anything"],
        ["--optimizer=canary_module.Anything"],
        ["--lr_scheduler.class_path=canary_module.Anything"],
        ["--trainer.callbacks=LambdaCallback", "--trainer.callbacks.on_fit_start=canary_module.touch"],
        ["--model.init_args.dict_kwargs.x=1"],
        ["--model.dict_kwargs={x: 1}"],
        ["--data.__class__=x"],
        ["--data.input.__init__={}"],
        ["--data.input.kind=!!python/object/apply:canary_module.touch []"],
        ["--data.input.kind=${oc.env:HOME}"],
    ],
    ids=str,
)
def test_an_option_that_asks_for_a_class_is_refused(options, canary, table, tmp_path, capsys):
    refused(capsys, canary, table, tmp_path / "run", *options)


# Nine to the seventh values by aliases.
LAUGHS = "a0: &a0 [x]\n" + "\n".join(f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 8))
CALLED_BACK = """
trainer:
  callbacks:
    - class_path: lightning.pytorch.callbacks.LambdaCallback
      init_args: {on_fit_start: canary_module.touch}
"""


@pytest.mark.parametrize(
    "text",
    [
        "model: !!python/object/apply:canary_module.touch []",
        "data: {input: !!python/name:canary_module.touch }",
        "trainer: !!python/module:canary_module",
        "!!python/object/new:canary_module.Anything {}",
        "model: !canary {}",
        "config: other.yaml",
        "config: [other.yaml]",
        "data: {input: {kind: &x axial_stack, size: *y}}",
        "model: {class_path: lesiontraining.tasks.CrossEntropyTask, dict_kwargs: {a: 1}}",
        "model: {class_path: lesiontraining.tasks.CrossEntropyTask, __class__: os.system}",
        "x: &x {class_path: canary_module.Anything}\ndata: {<<: *x}",
        "1: 2",
        "- 1",
        "just text",
        "a: [" * 3000,
        LAUGHS,
        "a: \x00",
        "# " + "x" * 2_000_000,
        CALLED_BACK,
    ],
    ids=lambda text: text[:60],
)  # fmt: skip
def test_a_yaml_that_is_more_than_values_is_refused(text, canary, table, tmp_path, capsys):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    assert "mine.yaml" in refused(capsys, canary, table, tmp_path / "run", config=path)


def test_a_second_recipe_and_a_file_in_an_option_are_read_as_strictly(canary, table, tmp_path, capsys):
    other = tmp_path / "other.yaml"
    other.write_text("data: {input: {kind: {class_path: canary_module.Anything}}}")
    assert "read, not run" in refused(capsys, canary, table, tmp_path / "run", "--config", str(other))
    (tmp_path / "part.yaml").write_text("kind: {class_path: canary_module.Anything}")
    for option in ("data.input", "model.init_args.arguments", "trainer.callbacks"):
        line = refused(capsys, canary, table, tmp_path / "run", f"--{option}={tmp_path / 'part.yaml'}")
        assert "write its options into the recipe" in line
    (tmp_path / "part").write_text("table: x\ninput: {kind: {class_path: canary_module.Anything}}")
    refused(capsys, canary, table, tmp_path / "run", f"--data={tmp_path / 'part'}")
    refused(capsys, canary, table, tmp_path / "run", f"--data.input={tmp_path / 'part'}")


def test_the_environment_gives_no_options_that_run(canary, table, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("JSONARGPARSE_DEFAULT_ENV", "true")
    monkeypatch.setenv("PL_DATA__INPUT", '{"kind": {"class_path": "canary_module.Anything"}}')
    path = with_changes(tmp_path, lambda recipe: recipe["data"].pop("input"))
    refused(capsys, canary, table, tmp_path / "run", config=path)


@pytest.mark.parametrize(
    "option", ["--model.help=canary_module.Anything", "--trainer.callbacks.help=canary_module.Spy"]
)
def test_help_imports_nothing_from_elsewhere(option, canary, table, tmp_path, capsys):
    refused(capsys, canary, table, tmp_path / "run", option)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_recipe_that_comes_along_is_accepted(path, tmp_path, monkeypatch):
    """Up to its table, which is not there: by then the recipe was read, checked and its data module built."""
    from lesiontraining.data.messages import TableError

    with pytest.raises(TableError, match=r"absent\.csv"):
        recipe_cli([f"--config={path}", f"--data.table={tmp_path / 'absent.csv'}"], FoldFolder(tmp_path / "fold-0", 0))


@pytest.mark.parametrize("name", IN_A_RECIPE)
def test_the_parser_itself_builds_nothing_from_elsewhere(name, canary, table, tmp_path, capsys, monkeypatch):
    """The second wall, where the first one had a hole."""
    from lesiontraining.commands import fit

    monkeypatch.setattr(fit, "check_texts", lambda _arguments: None)
    path = with_changes(tmp_path, lambda recipe: IN_A_RECIPE[name](recipe, a_command(canary)))
    refused(capsys, canary, table, tmp_path / "run", config=path, most=6000)  # the parser's own words
