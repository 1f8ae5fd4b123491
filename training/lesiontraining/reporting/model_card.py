"""The card of a model as Markdown: the same sections for every model, filled with what was measured of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import isnan

from lesiontraining.evaluation.intervals import Estimate


@dataclass(frozen=True)
class ModelCard:
    """Its sections as Markdown text; ``opening``: what is asked and how it is answered; ``limits``: one a line."""

    name: str
    version: str
    intended_use: str
    opening: str
    figures: str
    reliability: str
    made_by: str
    limits: Sequence[str]
    data: str

    def as_markdown(self) -> str:
        """The card."""
        sections = {
            "Figures": self.figures,
            "How far to rely on an answer": self.reliability,
            "Made by": self.made_by,
            "Limits": "\n".join(f"- {limit.strip()}" for limit in self.limits),
            "Data and licence": self.data,
        }
        head = (
            f"# {self.name} {self.version}\n\n**Research use only, not for diagnosis.** {self.intended_use.strip()}\n\n"
            f"{self.opening.strip()}\n"
        )
        return head + "".join(f"\n## {title}\n\n{text.strip()}\n" for title, text in sections.items())


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Lines of cells under a header."""
    lines = [header, *rows]
    text = [f"| {' | '.join(cells)} |".replace("|  |", "| |") for cells in lines]
    return "\n".join([text[0], "|---" * len(header) + "|", *text[1:]])


def shown(value: float | None, low: float | None, high: float | None) -> str:
    """A figure with its interval, where there is one; None or NaN is what does not exist."""
    if value is None or isnan(value):
        return "not measured"
    return f"{value:.3f}" if low is None or isnan(low) else f"{value:.3f} ({low:.3f}-{high:.3f})"


def signed(found: Estimate) -> str:
    """A difference with its interval, ``+0.013 (+0.002 to +0.023)``; NaN is what does not exist."""
    if isnan(found.value):
        return "not measured"
    return f"{found.value:+.3f} ({found.low:+.3f} to {found.high:+.3f})"
