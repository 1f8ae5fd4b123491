"""Looks at lesions as frames: what is not named here does not cross the process border."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
from LesionLib.heat_map import HeatMap
from LesionLib.runner_codec import request_from_frame, request_to_frame
from LesionLib.runner_wire import Frame

from .library_schema import ModelIdentity
from .retrieval_types import LesionLook, LookRequest


def look_request_to_frame(request: LookRequest) -> Frame:
    """The arrays are the CT, the segment where there is one, and last the other lesion's embedding where there is one."""
    frame = request_to_frame(request)
    compared = request.similar_to is not None
    others = [np.asarray(request.similar_to, dtype=np.float32)] if compared else []
    return Frame({**frame.header, "compared": compared}, [*frame.arrays, *others])


def look_request_from_frame(frame: Frame) -> LookRequest:
    """The inverse. Raises `VolumeError` or `BoxError` for what cannot be used."""
    plain = request_from_frame(frame)
    similar_to = frame.arrays[-1] if frame.header["compared"] else None
    return LookRequest(plain.model, plain.volume, plain.boxes, plain.options, similar_to)


def look_to_frame(look: LesionLook) -> Frame:
    """The arrays are the embedding, and the heat map where there is one."""
    heat_map = look.heat_map
    place = heat_map and {"ijkToRAS": heat_map.ijkToRAS.tolist(), "peak": heat_map.peak, "name": heat_map.class_name}
    header = {
        "probabilities": dict(look.probabilities),
        "class_colors": dict(look.class_colors),
        "heat_map": place,
        "model": asdict(look.model),
        "device": look.device,
    }
    return Frame(header, [look.embedding] if heat_map is None else [look.embedding, heat_map.array])


def look_from_frame(frame: Frame) -> LesionLook:
    """The inverse of `look_to_frame`."""
    header, place = frame.header, frame.header["heat_map"]
    heat_map = place and HeatMap(frame.arrays[1], np.array(place["ijkToRAS"]), place["peak"], place["name"])
    return LesionLook(
        embedding=frame.arrays[0],
        probabilities=header["probabilities"],
        class_colors={name: tuple(color) for name, color in header["class_colors"].items()},
        heat_map=heat_map,
        model=ModelIdentity(**header["model"]),
        device=header["device"],
    )
