"""A share of lesions with the interval that belongs to it. Knows no torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Proportion:
    """``hits`` of ``n`` with Wilson's 95 % interval, which takes the n to be independent; slices of a patient are not."""

    hits: int
    n: int
    low: float
    high: float

    @property
    def value(self) -> float:
        """hits / n."""
        return self.hits / self.n

    def __str__(self) -> str:
        """``0.599 (0.515-0.677, n = 137)``."""
        return f"{self.value:.3f} ({self.low:.3f}-{self.high:.3f}, n = {self.n})"


def proportion(hits: int, n: int) -> Proportion:
    """``hits`` of ``n``, n at least 1."""
    from scipy.stats import binomtest  # a second to import, and only model builders count

    interval = binomtest(int(hits), int(n)).proportion_ci(method="wilson")
    return Proportion(int(hits), int(n), float(interval.low), float(interval.high))
