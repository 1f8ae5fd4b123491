"""``ctkSliderWidget``, ``ctkDoubleSlider`` and ``ctkDoubleSpinBox``: real numbers on a line, in a box, in both."""

from __future__ import annotations

import math

import qt
from PySide6.QtCore import Property, Signal

_STEPS = 10000  # the slider inside is Qt's, which counts in whole numbers


@qt.customWidget
class ctkDoubleSlider(qt.QWidget):
    """Qt's slider with real numbers; ``value`` is kept exactly, the handle is as near as it gets."""

    valueChanged = Signal(float)
    sliderMoved = Signal(float)
    sliderPressed = Signal()
    sliderReleased = Signal()
    rangeChanged = Signal(float, float)

    def __init__(self, *arguments) -> None:
        super().__init__(next((each for each in arguments if isinstance(each, qt.QWidget)), None))
        self._value, self._minimum, self._maximum = 0.0, 0.0, 99.0
        self._singleStep, self._pageStep = 1.0, 10.0
        orientation = next((each for each in arguments if isinstance(each, qt.Qt.Orientation)), qt.Qt.Horizontal)
        self._slider = qt.QSlider(orientation)
        self._slider.setRange(0, _STEPS)
        layout = qt.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._slider)
        self._slider.valueChanged.connect(self._onHandle)
        for name in ("sliderPressed", "sliderReleased"):
            getattr(self._slider, name).connect(getattr(self, name).emit)

    def setValue(self, value: float) -> None:
        """Set it, within the limits."""
        value = min(max(float(value), self._minimum), self._maximum)
        if value != self._value:
            self._value = value
            self._placeHandle()
            self.valueChanged.emit(value)

    def _setRange(self, minimum: float, maximum: float) -> None:
        """Set the limits, and move the value between them."""
        self._minimum, self._maximum = float(minimum), float(max(minimum, maximum))
        self.rangeChanged.emit(self._minimum, self._maximum)
        self.setValue(self._value)
        self._placeHandle()

    def _setMinimum(self, value: float) -> None:
        """Set the lower limit."""
        self._setRange(value, max(self._maximum, value))

    def _setMaximum(self, value: float) -> None:
        """Set the upper limit."""
        self._setRange(min(self._minimum, value), value)

    def _setSingleStep(self, value: float) -> None:
        """What an arrow key does."""
        self._singleStep = float(value)

    def _setPageStep(self, value: float) -> None:
        """What a page key does."""
        self._pageStep = float(value)

    def _span(self) -> float:
        return self._maximum - self._minimum

    def _placeHandle(self) -> None:
        span = self._span()
        share = (self._value - self._minimum) / span if 0 < span < math.inf else 0.0
        self._slider.blockSignals(True)
        self._slider.setValue(round(share * _STEPS))
        self._slider.blockSignals(False)

    def _onHandle(self, place: int) -> None:
        value = self._minimum + self._span() * place / _STEPS
        if self._singleStep > 0:
            value = self._minimum + round((value - self._minimum) / self._singleStep) * self._singleStep
        self.setValue(value)
        self.sliderMoved.emit(self._value)

    value = Property(float, lambda self: self._value, setValue, notify=valueChanged)
    minimum = Property(float, lambda self: self._minimum, _setMinimum)
    maximum = Property(float, lambda self: self._maximum, _setMaximum)
    singleStep = Property(float, lambda self: self._singleStep, _setSingleStep)
    pageStep = Property(float, lambda self: self._pageStep, _setPageStep)


@qt.customWidget
class ctkDoubleSpinBox(qt.QWidget):
    """Qt's spin box in a widget of its own."""

    valueChanged = Signal(float)
    editingFinished = Signal()

    def __init__(self, *arguments) -> None:
        super().__init__(next((each for each in arguments if isinstance(each, qt.QWidget)), None))
        self._box = qt.QDoubleSpinBox()
        self._box.setRange(0.0, 99.99)
        layout = qt.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._box)
        self._box.valueChanged.connect(self.valueChanged.emit)
        self._box.editingFinished.connect(self.editingFinished.emit)

    def setValue(self, value: float) -> None:
        """Set it, within the limits; shown with as many decimals as it has, or `decimals`."""
        self._box.setValue(value)

    value = Property(float, lambda self: self._box.value, lambda self, value: self._box.setValue(value))
    minimum = Property(float, lambda self: self._box.minimum, lambda self, value: self._box.setMinimum(value))
    maximum = Property(float, lambda self: self._box.maximum, lambda self, value: self._box.setMaximum(value))
    singleStep = Property(float, lambda self: self._box.singleStep, lambda self, value: self._box.setSingleStep(value))
    decimals = Property(int, lambda self: self._box.decimals, lambda self, value: self._box.setDecimals(value))
    prefix = Property(str, lambda self: self._box.prefix, lambda self, value: self._box.setPrefix(value))
    suffix = Property(str, lambda self: self._box.suffix, lambda self, value: self._box.setSuffix(value))


@qt.customWidget
class ctkSliderWidget(qt.QWidget):
    """A slider and a spin box that show the same number. Without ``tracking`` a dragged value counts once let go."""

    valueChanged = Signal(float)
    valueIsChanging = Signal(float)

    def __init__(self, parent: qt.QWidget | None = None) -> None:
        super().__init__(parent)
        self._slider, self._box = ctkDoubleSlider(), qt.QDoubleSpinBox()
        self._tracking, self._isDragged = True, False
        self._box.setRange(0.0, 99.0)
        layout = qt.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._slider, 1)
        layout.addWidget(self._box)
        self._slider.valueChanged.connect(self._onSlider)
        self._slider.sliderPressed.connect(lambda: setattr(self, "_isDragged", True))
        self._slider.sliderReleased.connect(self._onReleased)
        self._box.valueChanged.connect(self.setValue)

    def setValue(self, value: float) -> None:
        """Set it, within the limits, with as many decimals as are shown."""
        self._slider.setValue(round(value, self._box.decimals) if math.isfinite(value) else value)

    def _setRange(self, minimum: float, maximum: float) -> None:
        """Set the limits, and move the value between them."""
        self._box.setRange(minimum, maximum)
        self._slider._setRange(minimum, maximum)

    def _setMinimum(self, value: float) -> None:
        """Set the lower limit."""
        self._setRange(value, max(self._slider.maximum, value))

    def _setMaximum(self, value: float) -> None:
        """Set the upper limit."""
        self._setRange(min(self._slider.minimum, value), value)

    def _setSingleStep(self, value: float) -> None:
        self._slider.singleStep = value
        self._box.singleStep = value

    def _onSlider(self, value: float) -> None:
        self._box.blockSignals(True)
        self._box.setValue(value)
        self._box.blockSignals(False)
        if self._isDragged and not self._tracking:
            self.valueIsChanging.emit(value)
        else:
            self.valueChanged.emit(value)

    def _onReleased(self) -> None:
        self._isDragged = False
        if not self._tracking:
            self.valueChanged.emit(self.value)

    value = Property(float, lambda self: self._slider.value, setValue, notify=valueChanged)
    minimum = Property(float, lambda self: self._slider.minimum, _setMinimum)
    maximum = Property(float, lambda self: self._slider.maximum, _setMaximum)
    singleStep = Property(float, lambda self: self._slider.singleStep, _setSingleStep)
    pageStep = Property(float, lambda self: self._slider.pageStep, lambda self, step: self._slider._setPageStep(step))
    decimals = Property(int, lambda self: self._box.decimals, lambda self, count: self._box.setDecimals(count))
    prefix = Property(str, lambda self: self._box.prefix, lambda self, text: self._box.setPrefix(text))
    suffix = Property(str, lambda self: self._box.suffix, lambda self, text: self._box.setSuffix(text))
    tracking = Property(bool, lambda self: self._tracking, lambda self, on: setattr(self, "_tracking", bool(on)))
