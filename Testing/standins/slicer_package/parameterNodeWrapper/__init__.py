"""Stand-in for ``slicer.parameterNodeWrapper``: typed attributes on a parameter node, kept as Slicer keeps them.

What is written to the node is what Slicer writes: a list ``x`` as ``x.len``, ``x.0``, ``x.1``, …; an enum by name; a bool as
``True``; a node as a reference of that role beside an empty parameter; one of several types as ``x.<place of the type>``. So
scenes go from one to the other. As Slicer's it needs ``qt`` and ``ctk``.
Not stood in for: parameter packs, `typing.Any`, colours, widgets made from types.
"""

from .annotations import (
    Choice,
    Decimals,
    Default,
    Exclude,
    IsInstance,
    Maximum,
    Minimum,
    NotNone,
    RangeBounds,
    SingleStep,
    Validator,
    WithinRange,
)
from .connectors import GuiConnector, createGuiConnector
from .wrapper import (
    SlicerParameterNamePropertyName,
    findChildWidgetForParameter,
    isParameterNodeWrapper,
    parameterNodeWrapper,
)

__all__ = [
    "Choice",
    "Decimals",
    "Default",
    "Exclude",
    "GuiConnector",
    "IsInstance",
    "Maximum",
    "Minimum",
    "NotNone",
    "RangeBounds",
    "SingleStep",
    "SlicerParameterNamePropertyName",
    "Validator",
    "WithinRange",
    "createGuiConnector",
    "findChildWidgetForParameter",
    "isParameterNodeWrapper",
    "parameterNodeWrapper",
]
