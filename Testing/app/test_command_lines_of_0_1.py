"""Every command, argument and option of version 0.1 is still accepted: scripts of users keep running. New ones may come."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import pytest
from LesionLensApp.cli import build_parser as lesionlens_parser
from lesiontraining.cli import build_parser as lesiontrain_parser
from repository import FILES_OF_0_1

LINES = (FILES_OF_0_1 / "command_lines.txt").read_text().splitlines()
PROGRAMS = {"lesionlens": lesionlens_parser, "lesiontrain": lesiontrain_parser}


def commands(parser: argparse.ArgumentParser, name: str) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """The commands that do something, by their whole name."""
    below = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    for action in below:
        for word, command in action.choices.items():
            yield from commands(command, f"{name} {word}")
    if not below:
        yield name, parser


@pytest.fixture(scope="module")
def parsers() -> dict[str, argparse.ArgumentParser]:
    return {name: found for program, make in PROGRAMS.items() for name, found in commands(make(), program)}


def split(line: str) -> tuple[str, list[str]]:
    """The command, and its arguments in order: ``--scope=all,same-patient`` has choices, ``--out!`` must be given."""
    words = line.split()
    count = 3 if words[1] in ("library", "models", "quiz") else 2
    return " ".join(words[:count]), words[count:]


def test_the_table_holds_all_commands_of_0_1():
    assert len(LINES) == 25
    assert sum(len(split(line)[1]) for line in LINES) == 145


@pytest.mark.parametrize("line", LINES, ids=lambda line: split(line)[0])
def test_a_command_of_0_1_takes_what_it_took(line, parsers):
    name, words = split(line)
    actions = parsers[name]._actions
    options = {option: action for action in actions for option in action.option_strings}
    positional = [action.dest for action in actions if not action.option_strings]
    assert positional == [word for word in words if not word.startswith("--")]
    was_required = set()
    for word in words:
        if word.startswith("--"):
            option, _, choices = word.removesuffix("!").partition("=")
            assert option in options, f"{name} no longer takes {option}"
            if choices:
                assert set(choices.split(",")) <= set(options[option].choices)
            if word.endswith("!"):
                was_required.add(option)
    required = {option for option, action in options.items() if action.required}
    assert required <= was_required, "an option that could be left out must now be given"
