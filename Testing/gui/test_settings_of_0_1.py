"""What version 0.1 kept in Slicer's settings is found by the panels: under the same keys."""

from __future__ import annotations

from repository import FILES_OF_0_1

LIBRARY = FILES_OF_0_1 / "cases.lesionlib"


def test_the_quiz_s_file_and_folder_are_those_of_the_last_time(module_widget):
    import qt

    qt.QSettings().setValue("LesionLens/Quiz", "/class/quiz.json")
    qt.QSettings().setValue("LesionLens/QuizAnswers", "/class/answers")
    panel = module_widget("LesionRetrieval")
    ui = panel.quiz.ui
    assert (ui.quizPathEdit.text, ui.answersPathEdit.text) == ("/class/quiz.json", "/class/answers")


def test_libraries_that_were_opened_are_offered(module_widget):
    import qt

    qt.QSettings().setValue("LesionRetrieval/recentLibraries", [str(LIBRARY)])
    panel = module_widget("LesionRetrieval")
    offered = [panel.ui.librarySelector.itemText(i) for i in range(panel.ui.librarySelector.count)]
    assert LIBRARY.name in offered
