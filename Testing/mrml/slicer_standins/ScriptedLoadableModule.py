"""Stand-in for ``slicer.ScriptedLoadableModule``, from its documented behaviour: the application's side is absent."""

import unittest


class ScriptedLoadableModule:
    def __init__(self, parent):
        self.parent = parent


class ScriptedLoadableModuleLogic:
    def __init__(self, parent=None):
        self.parent = parent


class ScriptedLoadableModuleTest(unittest.TestCase):
    def __init__(self, methodName="runTest"):
        super().__init__(methodName)


class ScriptedLoadableModuleWidget:
    def __init__(self, parent=None):
        self.parent = parent
