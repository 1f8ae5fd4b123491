"""``ctkRangeWidget`` and ``ctkDoubleRangeSlider``: a smaller and a larger number within limits."""

from __future__ import annotations

import qt
from PySide6.QtCore import Property, Signal


class _Range(qt.QWidget):
    valuesChanged = Signal(float, float)
    minimumValueChanged = Signal(float)
    maximumValueChanged = Signal(float)
    rangeChanged = Signal(float, float)

    def __init__(self, parent: qt.QWidget | None = None) -> None:
        super().__init__(parent)
        self._values, self._limits, self._singleStep, self._decimals = (0.0, 99.0), (0.0, 99.0), 1.0, 2
        self._boxes = (qt.QDoubleSpinBox(), qt.QDoubleSpinBox())
        layout = qt.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        for box in self._boxes:
            box.setRange(*self._limits)
            layout.addWidget(box)
            box.valueChanged.connect(self._onBoxes)
        self._show()

    def setValues(self, smaller: float, larger: float) -> None:
        """Set both, within the limits."""
        low, high = self._limits
        before = self._values
        self._values = tuple(min(max(float(value), low), high) for value in sorted((smaller, larger)))
        self._show()
        if self._values == before:
            return
        for signal, new, old in zip(
            (self.minimumValueChanged, self.maximumValueChanged), self._values, before, strict=True
        ):
            if new != old:
                signal.emit(new)
        self.valuesChanged.emit(*self._values)

    def setRange(self, minimum: float, maximum: float) -> None:
        """Set the limits, and move the values between them."""
        self._limits = (float(minimum), float(max(minimum, maximum)))
        for box in self._boxes:
            box.blockSignals(True)
            box.setRange(*self._limits)
            box.blockSignals(False)
        self.rangeChanged.emit(*self._limits)
        self.setValues(*self._values)

    def _show(self) -> None:
        for box, value in zip(self._boxes, self._values, strict=True):
            box.blockSignals(True)
            box.setValue(value)
            box.blockSignals(False)

    def _onBoxes(self) -> None:
        self.setValues(*(box.value for box in self._boxes))

    def _setDecimals(self, count: int) -> None:
        self._decimals = count
        for box in self._boxes:
            box.setDecimals(count)

    minimumValue = Property(
        float, lambda self: self._values[0], lambda self, value: self.setValues(value, max(value, self._values[1]))
    )
    maximumValue = Property(
        float, lambda self: self._values[1], lambda self, value: self.setValues(min(value, self._values[0]), value)
    )
    minimum = Property(
        float, lambda self: self._limits[0], lambda self, value: self.setRange(value, max(value, self._limits[1]))
    )
    maximum = Property(
        float, lambda self: self._limits[1], lambda self, value: self.setRange(min(value, self._limits[0]), value)
    )
    singleStep = Property(
        float, lambda self: self._singleStep, lambda self, value: setattr(self, "_singleStep", float(value))
    )
    decimals = Property(int, lambda self: self._decimals, _setDecimals)


@qt.customWidget
class ctkRangeWidget(_Range):
    """Two numbers, each with a box."""


@qt.customWidget
class ctkDoubleRangeSlider(_Range):
    """Two numbers on one line."""
