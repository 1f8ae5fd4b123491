"""A quiz for learners: nothing that is not due can be read in it, the steps open it, and its answers are those to the teacher's."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from LesionRetrievalLib.quiz.attempt import Step, read_attempts
from LesionRetrievalLib.quiz.file import learner_document, load_quiz, quiz_sha256, save_learner_quiz, save_quiz
from LesionRetrievalLib.quiz.model import QuizError
from LesionRetrievalLib.quiz.report import score_of
from LesionRetrievalLib.quiz.sealing import seal, unseal
from LesionRetrievalLib.quiz.session import QuizSession
from quiz_cases import Clock, phantom_quiz

KEY = bytes(range(32))


@pytest.fixture(scope="module")
def learners(tmp_path_factory):
    """The path of a quiz for learners, and the teacher's quiz it was made of."""
    path = tmp_path_factory.mktemp("sealed") / "learners.json"
    save_learner_quiz(phantom_quiz(boxes="placed"), path)
    return path


def test_a_seal_opens_with_its_key_and_context_alone():
    sealed = seal(KEY, b"malignant" * 1000, "case-01 truth")
    assert unseal(KEY, sealed, "case-01 truth") == b"malignant" * 1000
    assert seal(KEY, b"malignant", "") != seal(KEY, b"malignant", "")
    changed = sealed[:100] + ("A" if sealed[100] != "A" else "B") + sealed[101:]
    for key, text, context in (
        (KEY[::-1], sealed, "case-01 truth"),
        (KEY, sealed, "case-02 truth"),
        (KEY, changed, "case-01 truth"),
    ):
        with pytest.raises(QuizError, match="does not open"):
            unseal(key, text, context)


def test_the_key_stream_is_hmac_over_a_counter():
    """As the page computes it, and any other program: RFC 8018's PBKDF2 with one round."""
    import base64
    import hashlib
    import hmac

    data = base64.b64decode(seal(KEY, b"\0" * 70, "c"))
    nonce, cipher = data[:32], data[32:-32]
    key = hmac.digest(KEY, b"cipher", "sha256")
    blocks = [hmac.digest(key, nonce + n.to_bytes(4, "big"), "sha256") for n in (1, 2, 3)]
    assert cipher == b"".join(blocks)[:70]
    assert hashlib.sha256(nonce).digest() != nonce


def test_nothing_that_is_not_due_can_be_read_in_the_file(learners):
    document = json.loads(learners.read_text())
    for case in document["cases"]:
        assert set(case) == {"id", "patch", "model", "truth"}
        assert set(case["model"]["slots"]) == set(case["truth"]["slots"]) == {"benign", "malignant"}
    text = json.dumps([{**case, "patch": None} for case in document["cases"]])
    for told in ("histology", "margin", "lib-1", "sizeMm", "probabilities", "is <spic"):
        assert told not in text


def test_the_box_is_in_the_open_only_where_it_is_given():
    assert all("box" in case for case in learner_document(phantom_quiz(boxes="given"))["cases"])
    assert not any("box" in case for case in learner_document(phantom_quiz(boxes="placed"))["cases"])


def test_the_steps_open_it_and_the_answers_are_those_to_the_teacher_s_quiz(learners, tmp_path):
    teacher = phantom_quiz(boxes="placed")
    for path, code in ((learners, "L1"), (None, "L2")):
        quiz = load_quiz(path) if path else teacher
        session = QuizSession.open(quiz, tmp_path, learner=code, clock=Clock())
        while session.step is not Step.DONE:
            session.finish_looking()
            session.place_box(teacher.case(session.attempt.record.case_id).box)
            with pytest.raises(QuizError, match="What the model says can be seen from"):
                _ = session.model_prediction
            session.answer("malignant", 0.8)
            case = teacher.case(session.attempt.record.case_id)
            assert session.model_prediction.probabilities == pytest.approx(case.prediction.probabilities)
            assert len(session.model_prediction.similar) == len(case.prediction.similar)
            session.finish_reveal()
            session.answer("benign", 0.6)
            assert session.feedback.known == case.known
            assert session.feedback.box_overlap == pytest.approx(1)
            session.next_case()
        assert score_of(session.answered_quiz, [session.attempt]).summary.everyone.n == 3
    both = score_of(teacher, read_attempts(teacher, tmp_path))
    assert [row.second_is_right for row in both.rows].count(True) == 2


def test_a_resumed_session_opens_the_cases_that_were_answered_before(learners, tmp_path):
    session = QuizSession.open(load_quiz(learners), tmp_path, learner="L1")
    session.finish_looking()
    session.place_box(phantom_quiz().case(session.attempt.record.case_id).box)
    session.answer("benign", 0.7)
    resumed = QuizSession.open(load_quiz(learners), tmp_path, learner="L1")
    assert resumed.step is Step.REVEAL
    assert resumed.model_prediction.label in ("benign", "malignant")


def test_what_is_not_due_is_refused_by_the_case_itself(learners):
    case = load_quiz(learners).cases[0]
    for what, text in (("known", "The truth"), ("prediction", "What the model says"), ("box", "box")):
        with pytest.raises(QuizError, match=f"{text}.*sealed"):
            getattr(case, what)


def test_the_fingerprint_is_the_teacher_s_and_only_the_teacher_s_quiz_is_written_or_scored(learners, tmp_path):
    quiz = load_quiz(learners)
    assert quiz_sha256(quiz) == quiz_sha256(phantom_quiz(boxes="placed"))
    with pytest.raises(QuizError, match="the one for learners"):
        save_quiz(quiz, tmp_path / "copy.json")
    with pytest.raises(QuizError, match="the one for learners"):
        learner_document(quiz)


def test_a_changed_sealed_part_is_refused(learners, tmp_path):
    document = json.loads(learners.read_text())
    content = document["cases"][0]["model"]["content"]
    document["cases"][0]["model"]["content"] = content[:200] + ("A" if content[200] != "A" else "B") + content[201:]
    (tmp_path / "changed.json").write_text(json.dumps(document))
    with pytest.raises(QuizError, match="does not open"):
        load_quiz(tmp_path / "changed.json").cases[0].open_prediction("benign")


def test_the_truth_can_stay_with_the_teacher():
    document = learner_document(phantom_quiz(), truth=False)
    assert not any("truth" in case for case in document["cases"])
    assert document["quiz"] == quiz_sha256(replace(phantom_quiz()))
