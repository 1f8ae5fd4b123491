"""The hash chain through a learner's log: each line ends with a SHA-256 of the line before it and of itself.

So a line that was changed, added, moved or taken out afterwards, by accident or by hand, is seen where the log is read. What it
does not show: lines taken away at the end, which look like a quiz that was left early; and the work of someone who computes the
chain anew, for it holds no secret. The page of a quiz (quiz.js) writes the same.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

CHAIN = "chain"
_CHAINED = re.compile(rb'(\{.+),"chain":"([0-9a-f]{64})"\}', re.DOTALL)
_SHOWN = 12


@dataclass(frozen=True)
class Chain:
    """What the chain of a log says. ``is_kept``: False for one of an earlier version, which has none.

    ``last``: what the next line goes on from. ``broken``: the lines, from 1, that do not fit what is before them.
    """

    is_kept: bool = True
    last: str = ""
    broken: tuple[int, ...] = ()

    def line(self, text: str) -> tuple[bytes, Chain]:
        """A line of the log out of an object's JSON, and the chain behind it."""
        content = text.encode("ascii")
        if not self.is_kept:
            return content + b"\n", self
        own = _own(self.last, content)
        return content[:-1] + f',"{CHAIN}":"{own}"}}\n'.encode("ascii"), Chain(last=own, broken=self.broken)

    def note(self, learner: str) -> str:
        """What has to be said of it with a score; "" where nothing has."""
        if not self.is_kept:
            return (
                f"The answers of {learner} were written by an earlier version, without a hash chain: whether they were changed "
                "since would not be seen."
            )
        if not self.broken:
            return ""
        shown = ", ".join(map(str, self.broken[:_SHOWN])) + (", …" if len(self.broken) > _SHOWN else "")
        lines = "line" if len(self.broken) == 1 else "lines"
        return (
            f"The answers of {learner} were changed after they were given: {lines} {shown} of the file does not fit what is before, "
            "so something there was altered, added, moved or taken out. They are counted as they are now."
        )


def chain_of(lines: Sequence[bytes]) -> Chain:
    """The chain of a log's lines, without their ends."""
    found = [_CHAINED.fullmatch(line) for line in lines]
    if not any(found):
        return Chain(is_kept=False)
    last, broken = "", []
    for number, match in enumerate(found, start=1):
        if match is None or match[2].decode() != _own(last, match[1] + b"}"):
            broken.append(number)
        last = last if match is None else match[2].decode()
    return Chain(last=last, broken=tuple(broken))


def _own(last: str, content: bytes) -> str:
    return hashlib.sha256(last.encode("ascii") + content).hexdigest()
