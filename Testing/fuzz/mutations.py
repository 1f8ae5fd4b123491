"""Damage to files, by a seed: bytes, cells of tables, values of JSON, rows of SQLite, elements of DICOM."""

from __future__ import annotations

import copy
import json
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pydicom

Rng = np.random.Generator
_BYTES = (
    b"\x00",
    b"\xff",
    b"\x7f",
    b"\x80",
    b"\n",
    b",",
    b'"',
    b"{",
    b"9",
    b"-",
    b"\xff\xff\xff\xff",
    b"\x00\x00\x00\x80",
)
VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**63, -(2**63), 10**30, 0.5, -0.0, 1e308, 1e-320, float("nan"), float("inf"),
    "", " ", "\x00", "a\nb", "x" * 5000, "\ud800", "../../x", "NaN", "1e999", "\u202e", "=1+1", [], {}, [[]], [None], {"": 1},
    [0] * 300, [1, 2, 3], ["a"], {"a": {"b": []}},
)  # fmt: skip
CELLS = (
    "", " ", "nan", "inf", "-inf", "1e308", "1e-320", "-1", "0", "99999999999999999999", "0x10", "1,5", "1;2", "\x00", "\t",
    "é", "\u202e", "=1+1", "x" * 3000, "../../etc/passwd", "/dev/zero", "LPS", "RAS", '"', "1 2 3", "1_000", "٣", "None",
)  # fmt: skip


def damaged_bytes(content: bytes, rng: Rng) -> bytes:
    """One to four of: a bit, a byte, a piece gone, doubled, moved, overwritten, or the end cut off."""
    data = bytearray(content)
    for _ in range(int(rng.integers(1, 5))):
        size = len(data)
        # Heads decide most: half of all damage is done in the first 400 bytes.
        at = int(rng.integers(0, max(1, min(size, 400) if rng.random() < 0.5 else size)))
        length = int(rng.choice([1, 2, 4, 8, 64, 1000]))
        match int(rng.integers(7)):
            case 0 if size:
                data[at] ^= 1 << int(rng.integers(8))
            case 1 if size:
                data[at] = int(rng.integers(256))
            case 2:
                del data[at : at + length]
            case 3:
                data[at:at] = data[at : at + length]
            case 4:
                piece = _BYTES[rng.integers(len(_BYTES))]
                data[at : at + len(piece)] = piece
            case 5:
                other = int(rng.integers(0, max(1, size)))
                data[at : at + length] = data[other : other + length]
            case _:
                del data[at if rng.random() < 0.3 else size - min(size, length) :]
    return bytes(data)


def damaged_json(text: str, rng: Rng, *, values: tuple[Any, ...] = VALUES) -> str:
    """One to three values replaced, doubled, or taken away; sometimes the text itself damaged."""
    if rng.random() < 0.15:
        return damaged_bytes(text.encode(), rng).decode("utf-8", "replace")
    content = damaged_value(json.loads(text), rng, values)
    with suppress(ValueError, RecursionError):
        return json.dumps(content)
    return text


def damaged_value(content: Any, rng: Rng, values: tuple[Any, ...] = VALUES) -> Any:
    """A copy of a JSON value with one to three places of it changed."""
    content = copy.deepcopy(content)
    for _ in range(int(rng.integers(1, 4))):
        places = list(_places(content))
        if not places:
            return values[rng.integers(len(values))]
        holder, key = places[rng.integers(len(places))]
        new = copy.deepcopy(values[rng.integers(len(values))])
        match int(rng.integers(6)):
            case 0:
                del holder[key]
            case 1 if isinstance(holder, list):
                holder.insert(key, copy.deepcopy(holder[key]))
            case 1:
                holder[str(key) + "x"] = copy.deepcopy(holder[key])
            case 2 if isinstance(holder[key], int | float):
                holder[key] = holder[key] * float(rng.choice([-1, 0, 2, 1e3, 1e12]))
            case 3 if isinstance(holder[key], str):
                holder[key] = holder[key][: int(rng.integers(0, 1 + len(holder[key])))]
            case _:
                holder[key] = new
    return content


def _places(value: Any) -> list[tuple[Any, Any]]:
    found: list[tuple[Any, Any]] = []
    waiting = [value]
    while waiting:
        holder = waiting.pop()
        keys = holder.keys() if isinstance(holder, dict) else range(len(holder)) if isinstance(holder, list) else ()
        for key in keys:
            found.append((holder, key))
            waiting.append(holder[key])
    return found


def damaged_csv(text: str, rng: Rng) -> bytes:
    """Cells replaced, columns renamed, doubled or dropped, lines doubled; sometimes the bytes themselves."""
    if rng.random() < 0.25:
        return damaged_bytes(text.encode(), rng)
    rows = [line.split(",") for line in text.splitlines()]
    for _ in range(int(rng.integers(1, 4))):
        row = rows[rng.integers(len(rows))]
        place = int(rng.integers(max(1, len(row))))
        match int(rng.integers(6)):
            case 0 if row:
                del row[min(place, len(row) - 1)]
            case 1:
                row.insert(place, CELLS[rng.integers(len(CELLS))])
            case 2:
                rows.insert(int(rng.integers(len(rows))), list(row))
            case 3 if len(rows) > 1:
                rows.remove(row)
            case _ if row:
                row[min(place, len(row) - 1)] = CELLS[rng.integers(len(CELLS))]
            case _:
                pass
    joined = rng.choice(["\n", "\n", "\n", "\r\n", "\r"]).join(",".join(row) for row in rows)
    return joined.encode(str(rng.choice(["utf-8", "utf-8", "utf-8", "utf-8-sig", "utf-16"])), "replace")


def damage_rows(path: Path, rng: Rng) -> None:
    """Values of a SQLite file changed under the eyes of nobody: any type in any column, tables dropped, versions moved."""
    with closing(sqlite3.connect(path)) as connection, suppress(sqlite3.Error):
        connection.execute("PRAGMA ignore_check_constraints = ON")
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for _ in range(int(rng.integers(1, 4))):
            table = tables[rng.integers(len(tables))]
            columns = [row[1] for row in connection.execute(f'PRAGMA table_info("{table}")')]
            column = columns[rng.integers(len(columns))]
            value = VALUES[rng.integers(len(VALUES))]
            value = json.dumps(value) if isinstance(value, list | dict) else value
            value = value if not isinstance(value, int) or abs(value) < 2**63 else 2**62
            with suppress(sqlite3.Error, UnicodeEncodeError, OverflowError):
                match int(rng.integers(8)):
                    case 0:
                        connection.execute(
                            f'UPDATE "{table}" SET "{column}" = zeroblob(?)', (int(rng.integers(0, 5000)),)
                        )
                    case 1:
                        connection.execute(f'DELETE FROM "{table}" WHERE rowid % 2 = 0')
                    case 2:
                        connection.execute(f'ALTER TABLE "{table}" RENAME COLUMN "{column}" TO "{column}_x"')
                    case 3:
                        connection.execute(f"PRAGMA user_version = {int(rng.integers(-2, 9))}")
                    case 4:
                        connection.execute(f'UPDATE "{table}" SET "{column}" = substr("{column}", 2)')
                    case _:
                        connection.execute(f'UPDATE "{table}" SET "{column}" = ?', (value,))
        connection.commit()


_DICOM = (
    "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "Rows", "Columns", "BitsAllocated", "BitsStored",
    "HighBit", "PixelRepresentation", "SamplesPerPixel", "PhotometricInterpretation", "RescaleSlope", "RescaleIntercept",
    "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID", "Modality", "InstanceNumber", "SeriesNumber", "SliceThickness",
    "PixelData", "NumberOfFrames", "SpacingBetweenSlices",
)  # fmt: skip
_DICOM_VALUES: tuple[Any, ...] = (
    None, "", 0, 1, -1, 65535, 65536, "x", "nan", "inf", "1e400", [], [0], [0, 0, 0], [1, 2], [1e308] * 3, [0.0] * 6,
    [1, 0, 0, 1, 0, 0], "1\\2\\3", "1.2.3", b"", b"\x00", b"\x00" * 999, 16, 12, 32, "RGB", "MR", "1.2.840.10008.5.1.4.1.1.2.1",
)  # fmt: skip


def damage_dicom(path: Path, rng: Rng) -> None:
    """Elements of one file replaced or removed; sometimes its bytes damaged."""
    if rng.random() < 0.4:
        path.write_bytes(damaged_bytes(path.read_bytes(), rng))
        return
    data = pydicom.dcmread(path, force=True)
    for _ in range(int(rng.integers(1, 4))):
        name = _DICOM[rng.integers(len(_DICOM))]
        with suppress(Exception):
            if rng.random() < 0.3:
                delattr(data, name)
            else:
                setattr(data, name, _DICOM_VALUES[rng.integers(len(_DICOM_VALUES))])
    before = path.read_bytes()
    try:
        pydicom.dcmwrite(path, data)
    except Exception:  # a value that pydicom itself cannot write
        path.write_bytes(damaged_bytes(before, rng))


def damaged_header(content: bytes, rng: Rng, change: Callable[[str, Rng], str]) -> bytes:
    """The text head of an image file changed (up to the first empty line, as in NRRD, or the data line, as in MetaImage)."""
    end = content.find(b"\n\n") if b"\n\n" in content[:4000] else content.find(b"ElementDataFile")
    if end <= 0 or rng.random() < 0.3:
        return damaged_bytes(content, rng)
    return change(content[:end].decode("latin-1"), rng).encode("latin-1", "replace") + content[end:]


_HEAD_VALUES = (
    "0", "-1", "3", "4", "99999999", "4294967296", "nan", "inf", "1e400", "none", "???", "", "gzip", "raw", "ascii", "hex",
    "short", "double", "block", "left-posterior-superior", "(0,0,0)", "(nan,0,0) (0,1,0) (0,0,1)", "0 0 0", "1 1 1", "1 1 1 1",
    "2147483647 2147483647 2147483647", "LIST", "../x.raw", "/dev/zero", "/etc/passwd", "MET_FLOAT", "True", "zlib",
)  # fmt: skip


def damaged_fields(head: str, rng: Rng) -> str:
    """Fields of ``name: value`` or ``name = value`` lines changed, doubled or dropped."""
    lines = head.split("\n")
    for _ in range(int(rng.integers(1, 4))):
        place = int(rng.integers(len(lines)))
        mark = "=" if "=" in lines[place] and ": " not in lines[place] else ":"
        name, found, _ = lines[place].partition(mark)
        match int(rng.integers(4)):
            case 0:
                lines.insert(place, lines[place])
            case 1 if len(lines) > 1:
                del lines[place]
            case _ if found:
                lines[place] = f"{name}{mark} {_HEAD_VALUES[rng.integers(len(_HEAD_VALUES))]}"
            case _:
                lines[place] = _HEAD_VALUES[rng.integers(len(_HEAD_VALUES))]
    return "\n".join(lines)
