"""Plan: what a run does, fixed by its first run; a later one with other inputs or settings is refused with the difference."""

import hashlib
import json
import os
from collections.abc import Sequence
from typing import Any

from curation.storage import Storage

PLAN = "_run/plan.json"

CHOICES = (
    "choose: run again with the old settings (they lie in _run/config.resolved.toml), give a new output folder, "
    "or, if only thresholds differ, judge the finished output again with `pan rejudge`"
)


class PlanMismatch(ValueError):
    """The output was begun with another plan.

    Attributes:
        differences: one "key: old -> new" a field that differs.
    """

    def __init__(self, differences: list[str]) -> None:
        shown = "\n  ".join(differences[:20]) + (f"\n  and {len(differences) - 20} more" if len(differences) > 20 else "")
        super().__init__(f"this output was begun with another plan:\n  {shown}\n{CHOICES}")
        self.differences = differences


def write_plan(out: str | os.PathLike[str] | Storage, plan: dict[str, Any], renews: Sequence[str] = ()) -> str:
    """Fixes `plan` for this output, or finds that it is already so; returns its digest (64 hex digits).

    Args:
        plan: inputs, settings (without thresholds: they may change, see `pan rejudge`), code version, seed. Nothing of this very
            run (time, host, worker count): the digest goes into every manifest.
        renews: parts of the plan, such as "settings.caption", that this run may change since it does anew what depends on them.

    Raises:
        PlanMismatch: the output has another plan.
    """
    store = Storage.at(out)
    text = json.dumps(plan, sort_keys=True, indent=1, allow_nan=False)
    if not store.create(PLAN, text.encode()):
        old = json.loads(store.read(PLAN))
        found = differences(old, json.loads(text))
        if other := [line for line in found if not any(line.startswith((f"{part}.", f"{part}:")) for part in renews)]:
            raise PlanMismatch(other)
        if found:
            store.replace(PLAN, text.encode())
    return plan_digest(plan)


def read_plan(out: str | os.PathLike[str] | Storage) -> dict[str, Any]:
    """The plan of an output.

    Raises:
        ValueError: this is not an output of PAN Curate.
    """
    store = Storage.at(out)
    if store.size(PLAN) is None:
        raise ValueError(
            f"{store.root} has no {PLAN}: it is not an output of `pan curate`; give its folder, or begin one with `pan curate VIDEOS --out {store.root}`"
        )
    plan: dict[str, Any] = json.loads(store.read(PLAN))
    return plan


def plan_digest(plan: dict[str, Any]) -> str:
    """sha256 of the plan as canonical JSON."""
    return hashlib.sha256(json.dumps(plan, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()).hexdigest()


def differences(old: Any, new: Any, key: str = "") -> list[str]:
    """Field by field, "settings.shots.threshold: 0.3 -> 0.4"; an entry of a list by its number; empty if equal."""
    if isinstance(old, dict) and isinstance(new, dict):
        pairs: list[tuple[str, Any, Any]] = [(f"{key}.{name}".lstrip("."), old.get(name, _ABSENT), new.get(name, _ABSENT)) for name in sorted({*old, *new})]
    elif isinstance(old, list) and isinstance(new, list):
        pairs = [(f"{key}[{i}]", _item(old, i), _item(new, i)) for i in range(max(len(old), len(new)))]
    else:
        return [] if old == new and type(old) is type(new) else [f"{key}: {_shown(old)} -> {_shown(new)}"]
    return [line for name, before, after in pairs for line in differences(before, after, name)]


_ABSENT = object()


def _item(items: list[Any], i: int) -> Any:
    return items[i] if i < len(items) else _ABSENT


def _shown(value: Any) -> str:
    return "(absent)" if value is _ABSENT else json.dumps(value, sort_keys=True)[:200]
