"""``sender.connect("signal(type)", function)`` and ``sender.signal.connect(function)`` as PythonQt does them."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable
from typing import Any

from PySide6.QtCore import QMetaMethod, QMetaObject, QObject, SignalInstance

from . import _attributes, _messages

_SIGNATURE = re.compile(r"\s*(\w+)\s*\((.*)\)\s*$")


def install() -> None:
    """Have every Qt object connect by signature, and its signals by attribute."""
    # PySide hands out `connect` and the signals in each class's own lookup of attributes, so that is where to step in.
    # Each class keeps its own original: QFile, QTimer and others have lookups of their own.
    own = [each for each in _attributes.qtClasses() if each is QObject or "__getattribute__" in vars(each)]
    for each in reversed(own):
        each.__getattribute__ = _lookup(each.__getattribute__)


def _lookup(original: Callable[[QObject, str], Any]) -> Callable[[QObject, str], Any]:
    def lookup(self: QObject, name: str) -> Any:
        if name in ("connect", "disconnect"):
            return functools.partial(_connectOrDisconnect, self, original(self, name), isNew=name == "connect")
        value = original(self, name)
        return Signal(self, name, value) if type(value) is SignalInstance else value  # asked millions of times

    return lookup


class Signal:
    """A signal of one object, which passes to each slot only as many arguments as it takes."""

    def __init__(self, sender: QObject, name: str, instance: SignalInstance) -> None:
        self._sender, self._name, self._instance = sender, name, instance

    def connect(self, slot: Callable[..., object]) -> bool:
        """Call ``slot`` whenever the signal is emitted."""
        return self._connect(slot, self._longest())

    def disconnect(self, slot: Callable[..., object] | None = None) -> bool:
        """Take back `connect`; without ``slot`` all of it. False where there was nothing to take back."""
        mine = _connections(self._sender)
        found = [each for each in mine if each[0] == self._name and (slot is None or each[1] == slot)]
        for each in found if slot is None else found[:1]:
            mine.remove(each)
            each[3].disconnect(each[2])
        return bool(found)

    def emit(self, *values: object) -> None:
        """Emit the signal."""
        self._instance.emit(*values)

    def __getitem__(self, overload: Any) -> Signal:
        """One of several signals of the same name."""
        return Signal(self._sender, self._name, self._instance[overload])

    def _longest(self) -> str:
        """The parameters of the signal, where it has defaults the full ones: ``bool`` for ``clicked``."""
        meta = self._sender.metaObject()
        for index in range(meta.methodCount()):
            method = meta.method(index)
            if (
                bytes(method.name().data()).decode() == self._name
                and method.methodType() == QMetaMethod.MethodType.Signal
            ):
                return ",".join(bytes(each.data()).decode() for each in method.parameterTypes())
        return ""

    def _connect(self, slot: Callable[..., object], parameters: str, *, atMost: int | None = None) -> bool:
        if not callable(slot):
            msg = f"{self._name} can't be connected to {slot!r}, which can't be called."
            raise TypeError(msg)
        sent = _parameterCount(f"({parameters})")
        taken = [count for count in (atMost, _argumentCount(slot)) if count is not None]
        passed = _passOn(slot, min([sent, *taken]))
        # Without its types PySide would take the signal that sends least.
        isTyped = sent > 0 and "PyObject" not in parameters
        instance = self._instance[parameters] if isTyped else self._instance
        instance.connect(passed)
        _connections(self._sender).append((self._name, slot, passed, instance))
        return True


def _passOn(slot: Callable[..., object], count: int) -> Callable[..., None]:
    def passed(*values: object) -> None:
        slot(*values[:count])

    return passed


def _argumentCount(slot: Callable[..., object]) -> int | None:
    """How many arguments PythonQt hands to ``slot``; None is all. Defaults count: ``lambda x=1: ...`` gets one."""
    function = slot.__func__ if inspect.ismethod(slot) else slot
    if not inspect.isfunction(function) or function.__code__.co_flags & inspect.CO_VARARGS:
        return None
    return function.__code__.co_argcount - (1 if inspect.ismethod(slot) else 0)


def _connections(sender: QObject) -> list[tuple[str, object, Callable[..., None], SignalInstance]]:
    if "_pythonQtConnections" not in sender.__dict__:
        sender.__dict__["_pythonQtConnections"] = []
    return sender.__dict__["_pythonQtConnections"]


def _connectOrDisconnect(sender: QObject, pysides: Callable[..., Any], *given: Any, isNew: bool) -> Any:
    if given and isinstance(given[0], QObject):
        return pysides(*given)  # PySide's own timers name the sender first
    return (_connect if isNew else _disconnect)(sender, *given)


def _connect(sender: QObject, signature: str, *target: Any) -> bool:
    """``target``: a function, or a Qt object and the signature of its slot."""
    signal = _find(sender, signature)
    if signal is None:
        return False
    parameters = _normal(signature).partition("(")[2].rpartition(")")[0]
    if len(target) == 2:
        receiver, slotName = target
        name = slotName.partition("(")[0].strip()
        if not hasattr(receiver, name):
            _messages.warn(f"QObject::connect: No such slot {receiver.metaObject().className()}::{slotName}")
            return False
        return signal._connect(getattr(receiver, name), parameters, atMost=_parameterCount(slotName))
    return signal._connect(target[0], parameters)


def _disconnect(sender: QObject, signature: str, slot: Callable[..., object] | None = None) -> bool:
    signal = _find(sender, signature)
    return False if signal is None else signal.disconnect(slot)


def _find(sender: QObject, signature: str) -> Signal | None:
    """The signal of this signature; None, with a warning, if there is none."""
    matched = _SIGNATURE.match(signature)
    if matched is None or not hasSignal(sender, signature):
        _messages.warn(f"QObject::connect: No such signal {sender.metaObject().className()}::{signature}")
        return None
    return getattr(sender, matched.group(1))


def hasSignal(sender: QObject, signature: str) -> bool:
    """Whether the object has this very signal; pointers to VTK objects travel as Python objects here."""
    meta = sender.metaObject()
    index = meta.indexOfMethod(_normal(signature))
    return index >= 0 and meta.method(index).methodType() == QMetaMethod.MethodType.Signal


def _normal(signature: str) -> str:
    withPythonObjects = re.sub(r"vtk\w+\s*\*", "PyObject", signature)
    return bytes(QMetaObject.normalizedSignature(withPythonObjects).data()).decode()


def _parameterCount(signature: str) -> int:
    inside = signature.partition("(")[2].rpartition(")")[0].strip()
    return 0 if not inside else inside.count(",") + 1
