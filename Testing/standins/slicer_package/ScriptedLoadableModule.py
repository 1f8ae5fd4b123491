"""Stand-in for ``slicer.ScriptedLoadableModule``, from its documented behaviour. As Slicer's it needs ``ctk`` and ``qt``."""

import importlib
import logging
import os
import unittest

import ctk  # noqa: F401 - Slicer's imports it at the top, so a module does not load without
import qt
import slicer

__all__ = [
    "ScriptedLoadableModule",
    "ScriptedLoadableModuleLogic",
    "ScriptedLoadableModuleTest",
    "ScriptedLoadableModuleWidget",
]


class ScriptedLoadableModule:
    """``parent`` is what Slicer shows of the module: title, categories, help; and its ``path`` is the module's file."""

    def __init__(self, parent):
        super().__init__()
        self.parent = parent
        self.moduleName = type(self).__name__
        parent.title = ""
        parent.categories, parent.dependencies, parent.contributors = [], [], ["those of the template"]
        parent.helpText = "The template's help."
        parent.acknowledgementText = "The template's acknowledgement."
        icons = [self.resourcePath(f"Icons/{self.moduleName}{kind}") for kind in (".svg", ".png")]
        found = [path for path in icons if os.path.isfile(path)]
        if found:
            parent.icon = qt.QIcon(found[0])
        if not hasattr(slicer, "selfTests"):
            slicer.selfTests = {}
        slicer.selfTests[self.moduleName] = self.runTest

    def resourcePath(self, filename):
        return os.path.join(os.path.dirname(self.parent.path), "Resources", filename)

    def runTest(self, msec=100, **given):
        module = importlib.import_module(self.__module__)
        if not hasattr(module, f"{self.moduleName}Test"):
            msg = f"Test case class not found: {self.__module__}.{self.moduleName}Test "
            raise AssertionError(msg)
        case = getattr(module, f"{self.moduleName}Test")()
        case.messageDelay = msec
        case.runTest(**given)


class ScriptedLoadableModuleWidget:
    """``parent`` is a widget with a layout; without one a window is made, set up and shown."""

    def __init__(self, parent=None):
        super().__init__()
        self.moduleName = type(self).__name__.removesuffix("Widget")
        self.developerMode = False
        self.parent = parent if parent is not None else self._window()
        self.layout = self.parent.layout()
        if parent is None:
            self.setup()
            self.parent.show()
        slicer.app.moduleManager().connect("moduleAboutToBeUnloaded(QString)", self._onModuleAboutToBeUnloaded)

    def _window(self):
        window = slicer.qMRMLWidget()
        window.setLayout(qt.QVBoxLayout())
        window.setMRMLScene(slicer.mrmlScene)
        return window

    def _onModuleAboutToBeUnloaded(self, moduleName):
        if moduleName == self.moduleName:
            self.cleanup()

    def resourcePath(self, filename):
        return os.path.join(os.path.dirname(slicer.util.modulePath(self.moduleName)), "Resources", filename)

    def setup(self):
        """Nothing: Slicer adds its developer's buttons here, in developer mode."""

    def cleanup(self):
        """Nothing, as in Slicer where a widget does not write it."""

    def onReload(self):
        slicer.util.reloadScriptedModule(self.moduleName)


class ScriptedLoadableModuleLogic:
    """Its parameter node is one a scene, or one of several where ``isSingletonParameterNode`` is False."""

    def __init__(self, parent=None):
        super().__init__()
        self.parent = parent
        self.moduleName = type(self).__name__.removesuffix("Logic")
        self.isSingletonParameterNode = True

    def getParameterNode(self):
        if self.isSingletonParameterNode:
            node = slicer.mrmlScene.GetSingletonNode(self.moduleName, "vtkMRMLScriptedModuleNode")
            if node is not None:
                # A scene that is closed takes the attribute away.
                if node.GetAttribute("ModuleName") != self.moduleName:
                    node.SetAttribute("ModuleName", self.moduleName)
                return node
        found = [] if self.isSingletonParameterNode else self.getAllParameterNodes()
        return found[0] if found else slicer.mrmlScene.AddNode(self.createParameterNode())

    def getAllParameterNodes(self):
        nodes = slicer.util.getNodesByClass("vtkMRMLScriptedModuleNode")
        return [node for node in nodes if node.GetAttribute("ModuleName") == self.moduleName]

    def createParameterNode(self):
        if slicer.mrmlScene is None:
            return None
        node = slicer.mrmlScene.CreateNodeByClass("vtkMRMLScriptedModuleNode")
        node.UnRegister(None)
        if self.isSingletonParameterNode:
            node.SetSingletonTag(self.moduleName)
        node.SetAttribute("ModuleName", self.moduleName)
        node.SetName(slicer.mrmlScene.GenerateUniqueName(self.moduleName))
        return node


class ScriptedLoadableModuleTest(unittest.TestCase):
    """Slicer's "Test" button calls `runTest`; its CTest runs the ``test_…`` methods one by one and never calls it."""

    def __init__(self, *arguments, **given):
        self.moduleTestNames = []
        super().__init__(*arguments, **given)
        # unittest.TestCase ends the chain; a mixin after it (VTKObservationMixin) has to be initialised as well.
        super(unittest.TestCase, self).__init__()
        if not self.moduleTestNames:
            self.moduleTestNames = [each for each in dir(self) if "test" in each and callable(getattr(self, each))]

    def delayDisplay(self, message, requestedDelay=None, msec=None):
        logging.info(message)
        slicer.app.processEvents()

    def runTest(self):
        if not self.moduleTestNames:
            logging.warning("No test is defined in %s", type(self).__name__)
            return
        self.setUpClass()
        for name in self.moduleTestNames:
            self.setUp()
            getattr(self, name)()
            self.tearDown()
        self.tearDownClass()
