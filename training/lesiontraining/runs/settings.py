"""With what a fold was fitted: kept beside it, and compared before it is gone on with or left as it is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

from lesiontraining.runs.folder import FoldFolder, RunError

SETTINGS = "settings.json"
_SHOWN = 6
# Options that came later, with what they were before they could be given: folds of before go on as they were begun.
_ADDED = {"model.init_args.localises": "false"}
# Where a fold is fitted, not what: another number of workers or another screen gives the same network.
_ELSEWHERE = (
    "config", "data.held_out", "data.workers", "data.cache", "data.progress", "data.check", "checkpoint.dirpath",
    "last.dirpath", "trainer.default_root_dir", "trainer.logger", "trainer.accelerator", "trainer.devices",
    "trainer.num_nodes", "trainer.strategy", "trainer.enable_progress_bar", "trainer.enable_model_summary",
)  # fmt: skip


def settings_of(config: Mapping[str, Any], *, data: str) -> dict[str, str]:
    """The configuration of a fit, flat, a text an option, without folders; and ``data``, a fingerprint of the lesions."""
    flat = {name: value for name, value in _flat("", config) if not _is_elsewhere(name)}
    return {**{name: _text(value) for name, value in flat.items()}, "lesions, labels and patients": data}


def keep_settings(fold: FoldFolder, settings: Mapping[str, str]) -> None:
    """Beside the fold, before its first epoch."""
    fold.path.mkdir(parents=True, exist_ok=True)
    (fold.path / SETTINGS).write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def kept_settings(fold: FoldFolder) -> dict[str, str] | None:
    """Those that the fold was begun with; None for a fold that is not begun, or of before settings were kept.

    Raises `RunError` where the file is damaged.
    """
    path = fold.path / SETTINGS
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        msg = f"{path} is damaged, so that nobody knows what the fold was fitted with; use another --out."
        raise RunError(msg) from error
    if not isinstance(settings, dict):
        msg = f"{path} holds no settings of a fit; use another --out."
        raise RunError(msg)
    return {str(name): str(value) for name, value in settings.items()}


def require_same_settings(fold: FoldFolder, settings: Mapping[str, str]) -> None:
    """Raises `RunError` naming what differs from the settings that the fold was begun with."""
    before = kept_settings(fold)
    if before is None:
        return
    before, settings = _ADDED | before, _ADDED | settings
    names = [name for name in dict.fromkeys([*before, *settings]) if before.get(name) != settings.get(name)]
    if not names:
        return
    shown = [f"{name}: {_short(before.get(name))} there, {_short(settings.get(name))} now" for name in names[:_SHOWN]]
    more = f"\nand {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    msg = (
        f"{fold.path} was fitted with other settings than these; give another --out, or the same settings.\n"
        + "\n".join(shown)
        + more
    )
    raise RunError(msg)


def _flat(prefix: str, value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, Mapping):
        return [
            pair for name, inner in value.items() for pair in _flat(f"{prefix}.{name}" if prefix else str(name), inner)
        ]
    return [(prefix, value)]


def _is_elsewhere(name: str) -> bool:
    return any(name == known or name.startswith(f"{known}.") for known in _ELSEWHERE)


def _text(value: Any) -> str:
    """A path by its last name: where a file lies is nobody's business."""
    if isinstance(value, PurePath) or (isinstance(value, str) and "/" in value):
        return Path(value).name
    return json.dumps(value, default=str, sort_keys=True) if not isinstance(value, str) else value


def _short(value: str | None) -> str:
    if value is None:
        return "not set"
    return value if len(value) <= 60 else f"{value[:57]}..."
