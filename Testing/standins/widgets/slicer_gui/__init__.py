"""Stand-ins for the widgets and the application that ``import slicer`` brings in Slicer, on a real MRML scene."""

import slicer

from .application import GuiApplication
from .markups import qMRMLMarkupsROIWidget, qSlicerMarkupsPlaceWidget
from .node_combobox import qMRMLNodeComboBox
from .segments import qMRMLSegmentsTableView
from .told import Told
from .views import qMRMLPlotView, qMRMLTableView
from .widgets import qMRMLRangeWidget, qMRMLSliderWidget, qMRMLSpinBox, qMRMLWidget, qSlicerWidget

_WIDGETS = (
    qMRMLMarkupsROIWidget,
    qMRMLNodeComboBox,
    qMRMLPlotView,
    qMRMLRangeWidget,
    qMRMLSegmentsTableView,
    qMRMLSliderWidget,
    qMRMLSpinBox,
    qMRMLTableView,
    qMRMLWidget,
    qSlicerMarkupsPlaceWidget,
    qSlicerWidget,
)

__all__ = ["GuiApplication", "Told", "install"]


def install() -> None:
    """Put the widgets where scripts look for them: ``slicer.qMRMLNodeComboBox``."""
    for each in _WIDGETS:
        setattr(slicer, each.__name__, each)
