"""Tables of computed lesions: a table as any other, the same bytes for the same seed."""

from __future__ import annotations

import numpy as np
from lesion_tables import read_table
from lesiontraining.data.checks import check_table
from lesiontraining.data.crops import input_spec
from lesiontraining.data.dataset import lesion_dataset
from lesiontraining.data.phantom_tables import PhantomTable, write_phantom_table

ASKED = PhantomTable({"phantom rim": "rim", "phantom nothing": "nothing"}, "abdomen", patients=3, lesions=2, seed=1)


def test_a_computed_table_is_one_that_is_learned_from(tmp_path):
    table = read_table("table", write_phantom_table(tmp_path, ASKED), label="class")
    check_table(table, progress=False)
    assert sorted(table.class_names) == ["phantom nothing", "phantom rim"]
    assert np.bincount(table.labels).tolist() == [3, 3]
    assert len(set(table.patients)) == 3
    shown = lesion_dataset(
        table, input_spec({"kind": "slice_with_neighbours", "view": "slice", "size": 64}), progress=False
    )
    assert shown.images[0].shape == (1, 3, 64, 64)
    assert np.isfinite(shown.targets).all()


def test_the_same_seed_writes_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        write_phantom_table(tmp_path / name, ASKED)
    files = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert len(files) == 7
    assert all((tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes() for name in files)
