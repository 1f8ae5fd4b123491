"""Which serializer a type has."""

from __future__ import annotations

import enum
import pathlib
import types
import typing

import slicer

from .annotations import Validator, split
from .containers import DictSerializer, ListSerializer, TupleSerializer, UnionSerializer
from .values import BoolSerializer, EnumSerializer, NodeSerializer, NoneSerializer, Serializer, TextSerializer

_PATHS = (
    pathlib.Path,
    pathlib.PurePath,
    pathlib.PosixPath,
    pathlib.PurePosixPath,
    pathlib.WindowsPath,
    pathlib.PureWindowsPath,
)


def serializerFor(annotated: object) -> Serializer:
    """The serializer of a type, with the checks annotated to it. Raises Exception, as Slicer does, for an unknown type."""
    plain, notes = split(annotated)
    made = _plainSerializer(plain)
    made.validators += [note for note in notes if isinstance(note, Validator)]
    return made


def _plainSerializer(kind: object) -> Serializer:
    origin, parts = typing.get_origin(kind), [serializerFor(part) for part in _typesIn(kind)]
    containers = {typing.Union: UnionSerializer, types.UnionType: UnionSerializer, tuple: TupleSerializer}
    if origin in containers:
        return containers[origin](parts)
    if origin in (list, dict):
        return (ListSerializer if origin is list else DictSerializer)(*parts)
    if kind in (bool, type(None)):
        return BoolSerializer() if kind is bool else NoneSerializer()
    if kind in (int, float, str) or kind in _PATHS:
        return TextSerializer(kind)
    for base, serializer in ((enum.Enum, EnumSerializer), (slicer.vtkMRMLNode, NodeSerializer)):
        if isinstance(kind, type) and issubclass(kind, base):
            return serializer(kind)
    msg = f"Unable to create serializer for type: {kind}"
    raise Exception(msg)


def _typesIn(kind: object) -> tuple[object, ...]:
    return typing.get_args(kind) if typing.get_origin(kind) is not None else ()
