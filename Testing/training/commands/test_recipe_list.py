"""The recipes that come along can be listed and named."""

from __future__ import annotations

import json

import pytest
from lesiontraining.cli import main
from lesiontraining.commands.fit import OptionError, _config
from lesiontraining.commands.recipes import recipe_file, recipes


def test_each_recipe_says_its_paper_its_data_and_its_time(capsys):
    listed = recipes()
    assert {"dmrn", "dadrn", "orthopatch", "lesionsearch", "siamese", "dmrn-lung-nodules"} <= {r.name for r in listed}
    assert len({recipe.name for recipe in listed}) == len(listed)
    assert all(recipe.paper and recipe.data and recipe.time for recipe in listed)
    assert main(["recipes", "--json"]) == 0
    assert [recipe["name"] for recipe in json.loads(capsys.readouterr().out)] == [recipe.name for recipe in listed]
    assert main(["recipes"]) == 0
    table = capsys.readouterr().out
    assert all(recipe.name in table for recipe in listed)


def test_a_paper_s_name_is_the_paper_s_recipe():
    assert recipe_file("dmrn") == recipe_file("paper/dmrn")
    assert recipe_file("dmrn").parent.name == "paper"
    assert recipe_file("tiny/dmrn").parent.name == "tiny"


def test_a_mistyped_recipe_is_answered_with_what_may_have_been_meant():
    with pytest.raises(OptionError, match="did you mean 'orthopatch'"):
        _config("ortopatch")
