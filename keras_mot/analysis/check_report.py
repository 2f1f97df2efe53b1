"""What `check` found of a file: values first, lines second."""

import collections
import dataclasses
import pathlib
from collections.abc import Iterable
from typing import Any

from keras_mot._tables import wrapped

_LOOP = "/while"
"""What follows the name of a recurrent layer in the scopes of its steps."""
_SHOWN = 6
"""Layers that a line names."""


@dataclasses.dataclass(frozen=True)
class Finding:
    """An operator that does not map to the target, or an input that it does not take.

    Attributes:
        layer: the layer of yours, as far as the names in the file tell it.
        operator: its name in the file, or "input".
        reason: what rule it breaks.
    """

    layer: str
    operator: str
    reason: str


def grouped_lines(findings: Iterable[Any]) -> list[str]:
    """A line for each reason: which operators of which layers; the steps of a loop are those of its layer.

    Args:
        findings: with `layer`, `operator` and `reason`.
    """
    findings = list(findings)
    loops = {each.layer.split(_LOOP)[0] for each in findings if _LOOP in each.layer}
    operators, count = {}, collections.Counter()
    for each in findings:
        layer = next((loop for loop in loops if f"{each.layer}/".startswith(f"{loop}/")), each.layer)
        operators.setdefault((each.reason, layer), {})[each.operator] = None
        count[each.reason, layer] += 1
    layers = {}
    for (reason, layer), names in operators.items():
        layers.setdefault((reason, tuple(sorted(names))), []).append(layer)
    lines = []
    for (reason, names), where in layers.items():
        times = sum(count[reason, layer] for layer in where)
        many = f" ({times} times)" if times > max(len(names), len(where)) else ""
        lines.append(f"{', '.join(names)} ({_first(where)}): {reason}{many}")
    return lines


def _first(names):
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


@dataclasses.dataclass(frozen=True)
class CheckReport:
    """Whether a file maps to a target; prints as lines.

    Attributes:
        target: name of the target.
        path: of the file.
        operators: how many operators the file has.
        findings: a `Finding` for each that does not map.
        checked_by: what the file was checked by: rules, or a compiler.
        rules_only: whether it was checked by published rules only, and neither compiled nor run.
        source: the document of the rules and its version, or the compiler's.
        notes: what else is to be known, in words.
        api_level: of Android, where the rules depend on it, or None.
    """

    target: str
    path: pathlib.Path
    operators: int
    findings: tuple[Finding, ...]
    checked_by: str
    rules_only: bool
    source: str
    notes: tuple[str, ...] = ()
    api_level: int | None = None

    @property
    def maps(self) -> bool:
        """Whether all of the file maps."""
        return not self.findings

    def to_dict(self) -> dict[str, Any]:
        """The report as a dictionary of JSON values."""
        values = {**dataclasses.asdict(self), "path": str(self.path), "maps": self.maps, "notes": list(self.notes)}
        return {**values, "findings": [dataclasses.asdict(each) for each in self.findings]}

    def __str__(self) -> str:
        level = "" if self.api_level is None else f", API level {self.api_level}"
        count = sum(each.operator != "input" for each in self.findings)
        verdict = "all of which map" if self.maps else f"of which {self.operators - count} map"
        lines = [f"{self.path}, {self.target}{level}: {self.operators} operators, {verdict}."]
        lines += [f"  {line}" for line in grouped_lines(self.findings)]
        how = (
            "Checked by rules only: it was neither compiled nor run"
            if self.rules_only
            else f"Checked by {self.checked_by}"
        )
        lines += [wrapped(note) for note in self.notes]
        return "\n".join([*lines, wrapped(f"{how}. Source: {self.source}.")])
