"""Both panels on a server: connected by its address, answered there, and nothing of the token kept anywhere."""

from __future__ import annotations

import shutil
from contextlib import contextmanager

import pytest
import slicer
from LesionClassifierLib.scene.lesions import addRoiNode, markAsLesion
from LesionClassifierLib.scene.results import storedResult
from LesionClassifierLib.scene.volumes import addVolumeNode
from LesionLib.model.folder import golden_case
from LesionLib.remote.runner import SwitchableRunner
from scored_model import NAME, small_model
from served import TOKEN, serving


class Nowhere:
    """A runner of this computer that is never to be asked."""

    def start(self, model=None, options=None) -> None:
        pass

    def run(self, request, *, progress=None):
        msg = "this computer was asked"
        raise AssertionError(msg)

    def cancel(self) -> bool:
        return False

    def restart(self) -> None:
        pass

    def close(self) -> None:
        pass


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    shutil.copytree(small_model(), folder / NAME)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LESIONLENS_MODELS", str(folder))
        with serving(NAME) as running:
            yield running


@contextmanager
def connected(panel, spin, server):
    panel.ui.runsOnSelector.setCurrentIndex(1)
    panel.ui.serverEdit.text = server.address
    panel.ui.connectButton.click()
    spin(until=lambda: "Connected" in panel.ui.serverLabel.text, seconds=20)
    yield
    panel.ui.runsOnSelector.setCurrentIndex(0)


@pytest.mark.parametrize("name", ["LesionClassifier", "LesionRetrieval"])
def test_a_panel_asks_the_server_that_is_typed_in_and_shows_its_token_no_more(module_widget, spin, server, name):
    import qt

    panel = module_widget(name, runner=SwitchableRunner(Nowhere()))
    assert not panel.ui.serverFrame.visible
    with connected(panel, spin, server):
        assert panel.logic.runner.server is not None
        assert TOKEN not in panel.ui.serverEdit.text
        assert not panel.ui.deviceSelector.enabled
        settings = qt.QSettings()
        assert settings.value("LesionLens/ServerAddress") == server.address.partition("/#")[0]
        assert all(TOKEN not in str(settings.value(key)) for key in settings.allKeys())
    assert panel.logic.runner.server is None
    assert panel.ui.deviceSelector.enabled


def test_a_lesion_is_answered_there_and_the_scene_knows_nothing_of_the_server(
    module_widget, spin, server, scene, tmp_path
):
    volume, box = golden_case()
    panel = module_widget("LesionClassifier", runner=SwitchableRunner(Nowhere()))
    panel.ui.modelSelector.setCurrentIndex(panel.ui.modelSelector.findText(NAME))
    addVolumeNode(scene, volume)
    roi = markAsLesion(addRoiNode(scene, box))
    panel.initializeParameterNode()
    with connected(panel, spin, server):
        panel.panel.classifyAll()
        spin(until=lambda: storedResult(roi) is not None, seconds=30)
    slicer.util.saveScene(str(tmp_path / "scene.mrml"))
    text = (tmp_path / "scene.mrml").read_text()
    assert TOKEN not in text
    assert "127.0.0.1" not in text


def test_an_address_that_is_none_and_a_wrong_token_are_said(module_widget, spin, server, told):
    panel = module_widget("LesionClassifier", runner=SwitchableRunner(Nowhere()))
    panel.ui.runsOnSelector.setCurrentIndex(1)
    for address, said in (
        ("nonsense", "no address"),
        (server.address.replace(TOKEN, "old"), "does not know this token"),
    ):
        panel.ui.serverEdit.text = address
        panel.ui.connectButton.click()
        spin(until=lambda text=said: text in told, seconds=20)
        assert panel.ui.serverLabel.text == "Not connected."
        assert panel.logic.runner.server is None


def test_where_torch_is_not_on_this_computer_a_server_does_without_it(module_widget, spin, server, monkeypatch):
    from LesionClassifierLib.setup import Missing

    panel = module_widget("LesionClassifier", runner=SwitchableRunner(Nowhere()))
    monkeypatch.setattr(panel.panel, "_missing", lambda: [Missing("torch", "runs the models", "200 MB")])
    panel.panel.checkSetup()
    assert not panel.panel.isSetUp
    with connected(panel, spin, server):
        assert panel.panel.isSetUp
        assert not panel.ui.setupFrame.visible


def test_another_runner_stays_where_it_is(module_widget):
    panel = module_widget("LesionClassifier", runner=Nowhere())
    assert panel.ui.runsOnSelector.count == 1
