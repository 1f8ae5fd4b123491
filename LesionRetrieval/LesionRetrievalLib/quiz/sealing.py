"""A quiz for learners: what they are not to see yet is sealed, case by case and step by step.

What the model says of a case is sealed under a key of its own, which lies in the file once for every class, each time under a
key made of that answer: whoever has answered, whatever the answer, can open it. The truth is sealed in the same way under what
opens the model's answer and the second answer together. So nothing can be read in an editor, and nothing can be opened without going
through the steps; but whoever writes a program that goes through them sees what follows, as anyone who answers does. Where that
matters, the truth stays with the teacher: ``truth=False``.

AES is not in Python's own library, and a learner's Slicer is to need no other. So a seal is made of HMAC-SHA-256 alone, which
Python and every browser bring along: its values over a counter are the key stream (`hashlib.pbkdf2_hmac` with one round gives
exactly these, block by block), and it authenticates what was enciphered (encrypt, then MAC).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from LesionLib.geometry import CTVolume, LesionBox

from LesionRetrievalLib.quiz.schema import QuizError

if TYPE_CHECKING:
    from LesionRetrievalLib.quiz.model import Diagnosis, ModelPrediction

LEARNER_FORMAT, LEARNER_VERSION = "lesionlens-quiz-for-learners", 1
ROUNDS = 20_000  # of PBKDF2, for a key that is made of an answer
_NONCE = _TAG = 32
_MAX_OPENED = 64 * 1024**2
_SEALED = {"type": "string", "maxLength": 96 * 1024**2}


def seal(key: bytes, content: bytes, context: str) -> str:
    """``content`` under ``key`` (32 bytes), as base64 of nonce, cipher text and tag. ``context``: to be said again at opening."""
    nonce = secrets.token_bytes(_NONCE)
    cipher = _xor(content, _stream(key, nonce, len(content)))
    return base64.b64encode(nonce + cipher + _tag(key, context, nonce + cipher)).decode("ascii")


def unseal(key: bytes, sealed: str, context: str) -> bytes:
    """The inverse of `seal`. Raises `QuizError` for another key or context, or what was changed."""
    try:
        data = base64.b64decode(sealed, validate=True)
    except ValueError as error:
        msg = "a sealed part is damaged; get the quiz again."
        raise QuizError(msg) from error
    body, tag = data[:-_TAG], data[-_TAG:]
    if len(body) < _NONCE or not hmac.compare_digest(tag, _tag(key, context, body)):
        msg = "a sealed part does not open: it was changed, or belongs to another answer; get the quiz again."
        raise QuizError(msg)
    return _xor(body[_NONCE:], _stream(key, body[:_NONCE], len(body) - _NONCE))


def answer_key(secret: bytes, label: str, salt: bytes) -> bytes:
    """The key (32 bytes) made of an answer, and of what had to be opened before it."""
    return hashlib.pbkdf2_hmac("sha256", secret + label.encode(), salt, ROUNDS, 32)


def _stream(key: bytes, nonce: bytes, length: int) -> bytes:
    cipher_key = hmac.digest(key, b"cipher", "sha256")
    return hashlib.pbkdf2_hmac("sha256", cipher_key, nonce, 1, length) if length else b""


def _tag(key: bytes, context: str, body: bytes) -> bytes:
    text = context.encode()
    return hmac.digest(hmac.digest(key, b"tag", "sha256"), len(text).to_bytes(4, "big") + text + body, "sha256")


def _xor(content: bytes, stream: bytes) -> bytes:
    return (np.frombuffer(content, np.uint8) ^ np.frombuffer(stream, np.uint8)).tobytes() if content else b""


def sealed_part_schema() -> dict[str, Any]:
    """A part and the slots with its key, a class each."""
    return {
        "type": "object",
        "additionalProperties": False,
        "required": ["salt", "slots", "content"],
        "properties": {
            "salt": {"type": "string", "pattern": "^[0-9a-f]{32}$"},
            "slots": {"type": "object", "additionalProperties": _SEALED, "minProperties": 2},
            "content": _SEALED,
        },
    }


def sealed_part(
    content: Mapping[str, Any], *, secret: bytes, labels: tuple[str, ...], context: str
) -> tuple[dict[str, Any], bytes]:
    """``content`` sealed so that each of ``labels`` opens it together with ``secret``; and the key it lies under."""
    key, salt = secrets.token_bytes(32), secrets.token_bytes(16)
    text = zlib.compress(json.dumps(content, ensure_ascii=False, allow_nan=False).encode(), 9)
    slots = {label: seal(answer_key(secret, label, salt), key, context) for label in labels}
    return {"salt": salt.hex(), "slots": slots, "content": seal(key, text, context)}, key


def opened_part(part: Mapping[str, Any], *, secret: bytes, label: str, context: str) -> tuple[dict[str, Any], bytes]:
    """The inverse of `sealed_part`, by one of its labels. Raises `QuizError`."""
    if label not in part["slots"]:
        msg = f"{label!r} is no answer of this quiz."
        raise QuizError(msg)
    key = unseal(answer_key(secret, label, bytes.fromhex(part["salt"])), part["slots"][label], context)
    inflating = zlib.decompressobj()
    text = inflating.decompress(unseal(key, part["content"], context), _MAX_OPENED)
    if not inflating.eof:
        msg = "a sealed part is larger than a quiz may be; get the quiz again."
        raise QuizError(msg)
    return json.loads(text), key


def reveal_secret(quiz: str, case_id: str) -> bytes:
    """What opens the model's answer together with the first answer: nothing secret, the case of this quiz."""
    return f"{quiz} {case_id} ".encode()


@dataclass(eq=False)
class SealedCase:
    """A case of a quiz for learners: as a `model.QuizCase`, and what is not due yet is refused (`QuizError`).

    ``read_prediction``, ``read_known``: from the opened JSON to what it means, and to the box where that was sealed too.
    """

    case_id: str
    volume: CTVolume
    quiz: str
    parts: Mapping[str, Any]
    read_prediction: Callable[[Mapping[str, Any]], tuple[ModelPrediction, LesionBox | None]]
    read_known: Callable[[Mapping[str, Any]], Diagnosis]
    visible_box: LesionBox | None
    _opened: dict[str, Any] = field(default_factory=dict)

    @property
    def box(self) -> LesionBox:
        """The teacher's box."""
        if self.visible_box is None:
            msg = f"The box of {self.case_id} is sealed until the first answer."
            raise QuizError(msg)
        return self.visible_box

    @property
    def prediction(self) -> ModelPrediction:
        """What the model says, after `open_prediction`."""
        return self._due("prediction", "What the model says")

    @property
    def known(self) -> Diagnosis:
        """The truth, after `open_known`."""
        return self._due("known", "The truth")

    def open_prediction(self, first: str) -> None:
        """With the first answer. Raises `QuizError`."""
        if "prediction" not in self._opened:
            context = f"{self.case_id} model"
            content, key = opened_part(
                self.parts["model"], secret=reveal_secret(self.quiz, self.case_id), label=first, context=context
            )
            prediction, box = self.read_prediction(content)
            self.visible_box = self.visible_box or box
            self._opened |= {"prediction": prediction, "key": key}

    def open_known(self, first: str, second: str) -> None:
        """With both answers. Raises `QuizError`."""
        self.open_prediction(first)
        if "known" not in self._opened:
            content, _ = opened_part(
                self.parts["truth"], secret=self._opened["key"], label=second, context=f"{self.case_id} truth"
            )
            self._opened["known"] = self.read_known(content)

    def _due(self, what: str, text: str) -> Any:
        if what not in self._opened:
            msg = f"{text} of {self.case_id} is sealed until it is answered."
            raise QuizError(msg)
        return self._opened[what]
