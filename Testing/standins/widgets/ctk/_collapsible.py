"""``ctkCollapsibleButton`` and ``ctkCollapsibleGroupBox``: a title that hides and shows what is under it."""

from __future__ import annotations

import qt
from PySide6.QtCore import Property, Signal

_MAXIMUM_HEIGHT = 16777215  # Qt's QWIDGETSIZE_MAX
_COLLAPSED_HEIGHT = 10


class _HiddenChildren:
    """Hides the direct children of a widget, and shows again those that were not hidden before."""

    def __init__(self, widget: qt.QWidget) -> None:
        self._widget = widget
        self._shownAgain: list[qt.QWidget] = []
        self._isHiding = False
        self._isOurs = False

    def hide(self) -> None:
        """Hide the children that are not hidden, also those that came since the last call."""
        self._isHiding, self._isOurs = True, True
        for child in self._children():
            if not child.isHidden():
                child.setVisible(False)
                if child not in self._shownAgain:
                    self._shownAgain.append(child)
        self._isOurs = False

    def show(self) -> None:
        """Show what `hide` hid."""
        self._isHiding, self._isOurs = False, True
        for child in self._shownAgain:
            child.setVisible(True)
        self._shownAgain = []
        self._isOurs = False

    def keepHidden(self) -> None:
        """Somebody has shown a child: while the widget is collapsed it stays hidden, and comes with the others later."""
        if self._isHiding and not self._isOurs:
            self.hide()

    def _children(self) -> list[qt.QWidget]:
        return [child for child in self._widget.children() if child.isWidgetType() and not child.isWindow()]


@qt.customWidget
class ctkCollapsibleButton(qt.QAbstractButton):
    """A button across the width of its contents: pressed, it hides them. ``checked`` is the opposite of ``collapsed``."""

    contentsCollapsed = Signal(bool)

    def __init__(self, *arguments) -> None:
        title = next((each for each in arguments if isinstance(each, str)), "")
        super().__init__(next((each for each in arguments if isinstance(each, qt.QWidget)), None))
        self._hidden = _HiddenChildren(self)
        self._collapsed = False
        self._collapsedHeight = _COLLAPSED_HEIGHT
        self.setCheckable(True)
        self.setChecked(True)
        self.setText(title)
        self.setSizePolicy(qt.QSizePolicy.Minimum, qt.QSizePolicy.Preferred)
        self.setContentsMargins(0, self._buttonSizeHint().height(), 0, 0)
        self.toggled.connect(self._onToggled)

    def _setCollapsed(self, collapsed: bool) -> None:
        """Hide the contents, or show them."""
        self.setChecked(not collapsed)

    def _onToggled(self, checked: bool) -> None:
        if self._collapsed == (not checked):
            return
        self._collapsed = not checked
        if self._collapsed:
            self._hidden.hide()
            self.setMaximumHeight(self.sizeHint().height())
        else:
            self.setMaximumHeight(_MAXIMUM_HEIGHT)
            self._hidden.show()
        self.updateGeometry()
        self.contentsCollapsed.emit(self._collapsed)

    collapsed = Property(bool, lambda self: self._collapsed, _setCollapsed)

    def event(self, event: qt.QEvent) -> bool:
        """Children that are laid out while collapsed stay hidden."""
        if event.type() in (qt.QEvent.LayoutRequest, qt.QEvent.ChildPolished, qt.QEvent.Show):
            self._hidden.keepHidden()
        return super().event(event)

    def hitButton(self, position: qt.QPoint) -> bool:
        """Only the title is the button."""
        return position.y() <= self._buttonSizeHint().height()

    def _buttonSizeHint(self) -> qt.QSize:
        """The size of the title."""
        option = qt.QStyleOptionButton()
        option.initFrom(self)
        text = self.fontMetrics().size(qt.Qt.TextShowMnemonic, self.text or "XXXX")
        indicator = self.style().pixelMetric(qt.QStyle.PM_IndicatorWidth, option, self)
        contents = qt.QSize(text.width() + 2 * indicator, max(text.height(), indicator))
        return self.style().sizeFromContents(qt.QStyle.CT_PushButton, option, contents, self)

    def sizeHint(self) -> qt.QSize:
        """The title alone, or the title with the contents."""
        button = self._buttonSizeHint()
        if self._collapsed or self.layout() is None:
            return qt.QSize(button.width(), button.height() + self._collapsedHeight)
        return self.layout().totalSizeHint().expandedTo(button)

    def minimumSizeHint(self) -> qt.QSize:
        """As `sizeHint`, at its smallest."""
        if self._collapsed or self.layout() is None:
            return self.sizeHint()
        return self.layout().totalMinimumSize().expandedTo(self._buttonSizeHint())

    def paintEvent(self, _event: qt.QPaintEvent) -> None:
        """A push button's face with an arrow and the title, at the top."""
        painter = qt.QPainter(self)
        option = qt.QStyleOptionButton()
        option.initFrom(self)
        option.state |= qt.QStyle.State_Raised
        option.rect.setHeight(self._buttonSizeHint().height())
        self.style().drawControl(qt.QStyle.CE_PushButtonBevel, option, painter, self)
        height = option.rect.height()
        arrow = qt.QStyleOption()
        arrow.initFrom(self)
        arrow.rect = qt.QRect(height // 4, height // 4, height // 2, height // 2)
        kind = qt.QStyle.PE_IndicatorArrowRight if self._collapsed else qt.QStyle.PE_IndicatorArrowDown
        self.style().drawPrimitive(kind, arrow, painter, self)
        place = option.rect.adjusted(height, 0, -4, 0)
        flags = qt.Qt.AlignVCenter | qt.Qt.AlignLeft | qt.Qt.TextShowMnemonic
        self.style().drawItemText(painter, place, int(flags), self.palette, self.enabled, self.text)
        painter.end()


@qt.customWidget
class ctkCollapsibleGroupBox(qt.QGroupBox):
    """A group box whose tick hides and shows the contents."""

    def __init__(self, *arguments) -> None:
        super().__init__(*arguments)
        self._hidden = _HiddenChildren(self)
        self._collapsedHeight = 14
        self.setCheckable(True)
        self.setChecked(True)
        self.toggled.connect(self._expand)

    def _setCollapsed(self, collapsed: bool) -> None:
        """Hide the contents, or show them."""
        self.setChecked(not collapsed)

    def _expand(self, shown: bool) -> None:
        if shown:
            self.setMaximumHeight(_MAXIMUM_HEIGHT)
            self._hidden.show()
        else:
            self._hidden.hide()
            self.setMaximumHeight(self._collapsedHeight + self.fontMetrics().height())

    collapsed = Property(bool, lambda self: not self.isChecked(), _setCollapsed)

    def event(self, event: qt.QEvent) -> bool:
        """A group box enables its children when ticked: these are always enabled, and hidden while collapsed."""
        if event.type() in (qt.QEvent.LayoutRequest, qt.QEvent.ChildPolished, qt.QEvent.Show):
            self._hidden.keepHidden()
        return super().event(event)
