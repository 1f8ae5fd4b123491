"""Stand-in for Slicer's ``ctk``: the widgets that a scripted module uses, with the behaviour that can be seen from outside."""

from ._buttons import ctkCheckablePushButton, ctkCheckBox, ctkColorPickerButton, ctkMessageBox
from ._choices import ctkCheckableComboBox, ctkComboBox, ctkSearchBox
from ._collapsible import ctkCollapsibleButton, ctkCollapsibleGroupBox
from ._paths import ctkDirectoryButton, ctkPathLineEdit
from ._ranges import ctkDoubleRangeSlider, ctkRangeWidget
from ._sliders import ctkDoubleSlider, ctkDoubleSpinBox, ctkSliderWidget

__all__ = [
    "ctkCheckBox",
    "ctkCheckableComboBox",
    "ctkCheckablePushButton",
    "ctkCollapsibleButton",
    "ctkCollapsibleGroupBox",
    "ctkColorPickerButton",
    "ctkComboBox",
    "ctkDirectoryButton",
    "ctkDoubleRangeSlider",
    "ctkDoubleSlider",
    "ctkDoubleSpinBox",
    "ctkMessageBox",
    "ctkPathLineEdit",
    "ctkRangeWidget",
    "ctkSearchBox",
    "ctkSliderWidget",
]
