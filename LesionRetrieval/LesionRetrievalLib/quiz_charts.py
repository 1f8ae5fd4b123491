"""The charts of the quiz summary as SVG text: made here, without a script, readable in grey too."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from LesionLib.proportion import Proportion

from .quiz_attempt import CASE_STEPS
from .quiz_score import Change
from .quiz_summary import Calibration, Group

BEFORE, AFTER, MODEL = "#7b8794", "#1764ab", "#c96f00"
CHANGE_COLORS = {
    Change.STAYED_RIGHT: "#2f8f5b",
    Change.WRONG_TO_RIGHT: "#8fd0a5",
    Change.RIGHT_TO_WRONG: "#f2a65a",
    Change.WRONG_TO_WRONG: "#d9b4b4",
    Change.STAYED_WRONG: "#b0433f",
}
STEP_COLORS = dict(
    zip(CASE_STEPS, ("#16324f", "#2a6f97", "#61a5c2", "#c96f00", "#f2a65a", "#b8c0ca"), strict=True),
)
_INK, _SOFT, _LINE = "#1d232b", "#5b6673", "#d9dee5"
_LABEL, _WIDTH, _ROW = 150, 760, 46
_LONGEST_NAME = 20


@dataclass(frozen=True)
class _Scale:
    """From a value to x: ``low`` to ``high`` over the width beside the labels."""

    high: float
    left: float = _LABEL
    right: float = _WIDTH - 20

    def __call__(self, value: float) -> float:
        return self.left + (self.right - self.left) * value / self.high


def accuracy_chart(groups: Sequence[Group]) -> str:
    """Share of right answers before and after the reveal and of the model, with intervals, one row a group."""
    x, height = _Scale(1.0), _ROW * len(groups) + 30
    marks = [_axis(x, [0, 0.25, 0.5, 0.75, 1], height, percent=True)]
    for place, group in enumerate(groups):
        y = _ROW * place + 8
        marks.append(_name(group.name, y + 19))
        marks.append(_interval(x, y + 6, group.before.right, BEFORE, "before the reveal"))
        marks.append(_interval(x, y + 18, group.after.right, AFTER, "after the reveal"))
        marks.append(_interval(x, y + 30, group.ai, MODEL, "the model"))
    return _svg(_WIDTH, height, marks, "Share of right answers with 95 % intervals")


def calibration_chart(side: Calibration, color: str, what: str) -> str:
    """Stated confidence (x) and share right (y): on the diagonal it is worth what it says; areas grow with the answers."""
    size, margin = 320, 58
    span, largest = size - margin - 26, max(b.n for b in side.bins)

    def at(x: float, y: float) -> tuple[float, float]:
        return margin + span * x, 12 + span * (1 - y)

    marks = []
    for tick in (0, 0.5, 1):
        (x, bottom), (left, y) = at(tick, 0), at(0, tick)
        marks.append(_line(x, 12, x, bottom, _LINE) + _line(left, y, left + span, y, _LINE))
        marks.append(
            _text(x, bottom + 16, f"{tick:.0%}", anchor="middle") + _text(left - 6, y + 4, f"{tick:.0%}", anchor="end")
        )
    marks.append(_line(*at(0, 0), *at(1, 1), _SOFT, dashes="4 4"))
    for b in side.bins:
        x, y = at(b.mean_confidence, b.share_right)
        told = f"{b.n} answers stated {b.mean_confidence:.0%} on average, {b.share_right:.0%} were right"
        marks.append(_circle(x, y, 4 + 9 * (b.n / largest) ** 0.5, color, told))
    marks.append(_text(margin + span / 2, span + 50, "stated confidence", anchor="middle"))
    middle = 12 + span / 2
    sideways = _text(11, middle, "share right", anchor="middle")
    marks.append(f'<g transform="rotate(-90 11 {middle:.0f})">{sideways}</g>')
    return _svg(size, span + 58, marks, f"Calibration of the learners' confidence {what}")


def change_chart(groups: Sequence[Group]) -> str:
    """What became of the first answers, as shares, one bar a group."""
    x, height = _Scale(1.0), 34 * len(groups) + 30
    marks = [_axis(x, [0, 0.25, 0.5, 0.75, 1], height, percent=True)]
    for place, group in enumerate(groups):
        y, begun = 34 * place + 6, 0.0
        marks.append(_name(group.name, y + 16))
        for change, color in CHANGE_COLORS.items():
            share = group.changes[change] / group.n
            told = f"{group.name}: {group.changes[change]} of {group.n} {change.value}"
            marks.append(_bar(x(begun), y, x(begun + share), color, told, str(group.changes[change] or "")))
            begun += share
    return _svg(_WIDTH, height, marks, "What became of the first answers")


def time_chart(groups: Sequence[Group]) -> str:
    """Median seconds per step, one bar a group."""
    highest = max((sum(group.median_seconds.values()) for group in groups), default=0.0) or 1.0
    ticks = _round_ticks(highest)
    x, height = _Scale(ticks[-1]), 34 * len(groups) + 30
    marks = [_axis(x, ticks, height)]
    for place, group in enumerate(groups):
        y, begun = 34 * place + 6, 0.0
        marks.append(_name(group.name, y + 16))
        for step, seconds in group.median_seconds.items():
            told = f"{group.name}: {step.value}, median {seconds:.1f} s"
            marks.append(_bar(x(begun), y, x(begun + seconds), STEP_COLORS[step], told))
            begun += seconds
    return _svg(_WIDTH, height, marks, "Median seconds of a case by step")


def _svg(width: float, height: float, marks: Sequence[str], title: str) -> str:
    opening = f'<svg viewBox="0 0 {width:.0f} {height:.0f}" role="img" aria-label="{escape(title)}">'
    return opening + "".join(marks) + "</svg>"


def _axis(x: _Scale, ticks: Sequence[float], height: float, *, percent: bool = False) -> str:
    bottom = height - 22
    lines = "".join(_line(x(tick), 0, x(tick), bottom, _LINE) for tick in ticks)
    texts = [
        _text(x(tick), bottom + 16, f"{tick:.0%}" if percent else f"{tick:g} s", anchor="middle") for tick in ticks
    ]
    return lines + "".join(texts)


def _round_ticks(highest: float) -> list[float]:
    """From 0 to at least ``highest`` in 3 to 6 steps of 1, 2 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(highest))
    step = next(power * part for part in (0.2, 0.5, 1, 2, 5) if highest <= 5 * power * part)
    return [step * count for count in range(math.ceil(highest / step) + 1)]


def _interval(x: _Scale, y: float, share: Proportion, color: str, what: str) -> str:
    told = f"{what}: {share.hits} of {share.n} right, {share.value:.0%} ({share.low:.0%} to {share.high:.0%})"
    dot = f'<circle cx="{x(share.value):.1f}" cy="{y:.1f}" r="4.5" fill="{color}"/>'
    line = _line(x(share.low), y, x(share.high), y, color, width=2.5)
    return f"<g><title>{escape(told)}</title>{line}{dot}</g>"


def _bar(left: float, top: float, right: float, color: str, told: str, number: str = "") -> str:
    """A part of a bar, with ``number`` in it where it fits."""
    place = f'x="{left:.1f}" y="{top:.0f}" width="{max(right - left, 0):.1f}"'
    drawn = f'<rect {place} height="22" fill="{color}"><title>{escape(told)}</title></rect>'
    if number and right - left > 9 * len(number):
        drawn += _text((left + right) / 2, top + 15.5, number, anchor="middle", color="#10161d")
    return drawn


def _circle(x: float, y: float, radius: float, color: str, told: str) -> str:
    place = f'cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}"'
    return f'<circle {place} fill="{color}" fill-opacity="0.75"><title>{escape(told)}</title></circle>'


def _name(name: str, y: float) -> str:
    short = name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 1] + "…"
    return _text(_LABEL - 14, y, short, anchor="end", color=_INK)


def _text(x: float, y: float, text: str, *, anchor: str, color: str = _SOFT) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="12" fill="{color}">{escape(text)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, color: str, *, width: float = 1.0, dashes: str = "") -> str:
    ends = f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
    return f'<line {ends} stroke="{color}" stroke-width="{width}" stroke-dasharray="{dashes or "none"}"/>'
