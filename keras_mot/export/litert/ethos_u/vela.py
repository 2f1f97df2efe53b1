"""Runs Vela, Arm's compiler for Ethos-U NPUs, on a `.tflite` file, and reads what it says.

Vela runs in a process of its own: it ends its process where a file is damaged.
"""

import csv
import dataclasses
import math
import os
import pathlib
import re
import subprocess
import sys
import tempfile
from importlib import metadata
from typing import Any

from keras_mot._messages import describe, nearest, shortened
from keras_mot.export.dependencies import check_compiler

ACCELERATORS = (
    *("ethos-u55-32", "ethos-u55-64", "ethos-u55-128", "ethos-u55-256", "ethos-u65-256", "ethos-u65-512"),
    *("ethos-u85-128", "ethos-u85-256", "ethos-u85-512", "ethos-u85-1024", "ethos-u85-2048"),
)
"""Vela's configurations: the NPU, and its multiplications in a cycle."""
_SECONDS = 600
_KIB = 1024
_WARNING = re.compile(
    r"^Warning \([^)]*\) operator: (\S+), ofm: '(.*)'\nReason: (.*(?:\n(?!Warning |Tensor '|#|$).+)*)", re.MULTILINE
)


@dataclasses.dataclass(frozen=True)
class Settings:
    """What Vela compiles for.

    Args:
        accelerator: one of `ACCELERATORS`.
        system_config: name of the clock and the bandwidths in Vela's configuration file, or `None` for Vela's default.
        memory_mode: name of what lies in which memory there, or `None` for Vela's default.
        config: path of a configuration file of one's own, or `None` for Arm's, which comes with Vela.
    """

    accelerator: str
    system_config: str | None = None
    memory_mode: str | None = None
    config: str | os.PathLike | None = None

    def __post_init__(self):
        if not isinstance(self.accelerator, str):
            raise TypeError(f"`accelerator` should be a name; received {describe(self.accelerator)}.")
        if self.accelerator not in ACCELERATORS:
            raise ValueError(
                f"There is no accelerator '{self.accelerator}'.{nearest(self.accelerator, ACCELERATORS)} Vela knows "
                f"{', '.join(ACCELERATORS)}."
            )
        for name in ("system_config", "memory_mode"):
            if not isinstance(getattr(self, name), str | None):
                raise TypeError(f"`{name}` should be a name or None; received {describe(getattr(self, name))}.")
        if not isinstance(self.config, str | os.PathLike | None):
            raise TypeError(f"`config` should be a path or None; received {describe(self.config)}.")
        if self.config is not None and not pathlib.Path(self.config).is_file():
            raise ValueError(
                f"`config` should be the path of a configuration file of Vela; there is no '{self.config}'."
            )

    @property
    def options(self) -> list[str]:
        """What Vela is called with."""
        given = {"system-config": self.system_config, "memory-mode": self.memory_mode, "config": self.config}
        found = [f"--{name}={value}" for name, value in given.items() if value is not None]
        return [f"--accelerator-config={self.accelerator}", *found]


@dataclasses.dataclass(frozen=True)
class Compiled:
    """What Vela made of a file.

    Attributes:
        content: the compiled file.
        summary: the row of its summary: texts by names of columns.
        rows: rows of its table of operators.
        reasons: by (operator, name of its result), why the NPU does not take it.
        version: of Vela.
    """

    content: bytes
    summary: dict[str, str]
    rows: tuple[dict[str, str], ...]
    reasons: dict[tuple[str, str], str]
    version: str

    def number(self, column: str) -> float:
        """A number of the summary; 0 where there is none, as where nothing runs on the NPU."""
        value = float(self.summary.get(column) or 0.0)
        return value if math.isfinite(value) else 0.0

    def bytes(self, column: str) -> int:
        """A number of bytes, of a column that holds KiB."""
        return round(self.number(column) * _KIB)


def version() -> str:
    """The version of Vela that is installed."""
    return metadata.version("ethos-u-vela")


def compile_content(content: bytes, settings: Settings, label: str) -> Compiled:
    """Compiles a file.

    Args:
        content: of a `.tflite` file.
        settings: the `Settings`.
        label: what to call the file in messages.

    Raises:
        ImportError: if Vela is not installed.
        ValueError: if Vela fails at the file or the settings.
    """
    check_compiler()
    with tempfile.TemporaryDirectory(prefix="keras_mot_") as folder:
        source = pathlib.Path(folder) / "model.tflite"
        source.write_bytes(content)
        asked = ["--output-dir", folder, "--show-cpu-operations", "--verbose-performance", *settings.options]
        command = [sys.executable, "-m", "ethosu.vela", str(source), *asked]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, errors="replace", timeout=_SECONDS, stdin=subprocess.DEVNULL
            )
        except subprocess.TimeoutExpired:
            raise ValueError(f"Vela takes more than {_SECONDS} seconds for {label}.") from None
        result = source.with_name("model_vela.tflite")
        if done.returncode or not result.is_file():
            raise ValueError(f"Vela cannot compile {label} for {settings.accelerator}: {_complaint(done)}")
        summaries, rows = _tables(folder, "model_summary_*.csv"), _tables(folder, "model_per-layer.csv")
        if not summaries:
            raise ValueError(f"Vela {version()} wrote no summary of {label}: it is not known by this version.")
        reasons = {(name, tensor): _reason(text) for name, tensor, text in _WARNING.findall(done.stdout + done.stderr)}
        return Compiled(result.read_bytes(), summaries[0], tuple(rows), reasons, version())


def _tables(folder, pattern):
    """The rows of the one table whose name is like this, or none."""
    for path in pathlib.Path(folder).glob(pattern):
        with path.open(newline="") as file:
            return list(csv.DictReader(file))
    return []


def _reason(text):
    """A reason in one line: what Vela says of the operator, and the rule behind it."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return "; ".join(lines)


def _complaint(done):
    """The last thing that Vela said before it ended."""
    lines = [line.strip() for line in (done.stdout + "\n" + done.stderr).splitlines() if line.strip()]
    lines = [line for line in lines if not line.startswith("Warning: No ")]
    how = f" (it ended with status {done.returncode})"
    return shortened(lines[-1] if lines else "it said nothing", 300) + how


def summary_of(compiled: Compiled) -> dict[str, Any]:
    """The memory, cycles and time that Vela estimates for one inference, by the names of `EthosUEstimate`."""
    return {
        "system_config": compiled.summary["system_config"],
        "memory_mode": compiled.summary["memory_mode"],
        "clock_mhz": compiled.number("core_clock") / 1e6,
        "flash_bytes": compiled.bytes("on_chip_flash_memory_used") + compiled.bytes("off_chip_flash_memory_used"),
        "sram_bytes": compiled.bytes("sram_memory_used"),
        "dram_bytes": compiled.bytes("dram_memory_used"),
        "weight_bytes": round(compiled.number("total_original_weights")),
        "encoded_weight_bytes": round(compiled.number("total_npu_encoded_weights")),
        "macs": round(compiled.number("nn_macs")),
        "cycles": round(compiled.number("cycles_total")),
        "milliseconds": compiled.number("inference_time") * 1e3,
    }
