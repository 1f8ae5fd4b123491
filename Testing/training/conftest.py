"""What tests of training share."""

from __future__ import annotations

import io
from collections.abc import Iterator

import pytest
from lesiontraining.reporting import report
from lesiontraining.reporting.charts import Chart
from PIL import Image

CHARTS_MATTER = (
    "test_every_class_and_every_method_stands_on_the_page",
    "test_a_recipe_is_fitted_measured_exported_and_answers_the_same_without_training_code[cross-entropy]",
)
_NOTHING = io.BytesIO()
Image.new("L", (8, 8)).save(_NOTHING, "PNG")


@pytest.fixture(scope="session", autouse=True)
def plain_charts() -> Iterator[list[bool]]:
    """A report's charts are made, and rendered only where they are looked at: matplotlib takes seconds for each report."""
    render, are_plain = report._png, [True]

    def png(chart: Chart) -> bytes:
        return _NOTHING.getvalue() if are_plain[0] else render(chart)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "_png", png)
        yield are_plain


@pytest.fixture(autouse=True)
def charts_where_they_are_looked_at(request: pytest.FixtureRequest, plain_charts: list[bool]) -> Iterator[None]:
    plain_charts[0] = not request.node.name.startswith(CHARTS_MATTER)
    yield
    plain_charts[0] = True
