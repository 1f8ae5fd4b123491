"""Quizzes: model, file, session, attempt log, making, scoring, report; knows no Slicer and no torch."""
