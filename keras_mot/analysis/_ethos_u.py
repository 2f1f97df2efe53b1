"""What Arm's Vela estimates for files on Ethos-U NPUs, side by side."""

import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from keras_mot._messages import describe
from keras_mot._tables import markdown_table, text_table
from keras_mot.analysis.check_report import grouped_lines
from keras_mot.export.dependencies import check_compiler
from keras_mot.export.litert.ethos_u.compiling import existing_file
from keras_mot.export.litert.ethos_u.estimate import EthosUEstimate, estimated
from keras_mot.export.litert.ethos_u.vela import Settings
from keras_mot.export.protocol import Export

File = str | os.PathLike | Export


@dataclasses.dataclass(frozen=True)
class EthosUReport:
    """Estimates side by side; `print(report)` shows them as a table, `report["name"]` finds one.

    Attributes:
        estimates: the `keras_mot.export.EthosUEstimate`s by the names of the files.
    """

    estimates: Mapping[str, EthosUEstimate]

    def __iter__(self) -> Iterator[str]:
        return iter(self.estimates)

    def __len__(self) -> int:
        return len(self.estimates)

    def __getitem__(self, name: str) -> EthosUEstimate:
        if name not in self.estimates:
            raise KeyError(f"No file is named {name!r}. Expected one of {list(self.estimates)}.")
        return self.estimates[name]

    @property
    def all_on_npu(self) -> bool:
        """Whether every operator of every file runs on the NPU."""
        return all(not each.off_npu for each in self.estimates.values())

    def to_dict(self) -> dict[str, Any]:
        """The report as a dictionary of JSON values."""
        return {"files": {name: each.to_dict() for name, each in self.estimates.items()}}

    def to_markdown(self) -> str:
        """The report as a Markdown table, followed by what the CPU computes, and how it was estimated."""
        lines = "".join(f"- {line}\n" for line in self._on_cpu())
        return markdown_table(*self._table(), caption=self._caption()) + (f"\n{lines}" if lines else "")

    def __str__(self) -> str:
        return "\n".join([text_table(*self._table(), caption=self._caption()), *self._on_cpu()])

    def _table(self):
        rows = self.estimates.values()
        columns = {
            "file": list(self.estimates),
            "on the NPU": [f"{each.npu_operators} of {each.operators}" for each in rows],
            "bytes": [f"{each.bytes:,}" for each in rows],
            "compiled": [f"{each.compiled_bytes:,}" for each in rows],
            "weights": [f"{each.weight_bytes:,}" for each in rows],
            "encoded": [f"{each.encoded_weight_bytes:,}" for each in rows],
            "flash": [f"{each.flash_bytes:,}" for each in rows],
            "SRAM": [f"{each.sram_bytes:,}" for each in rows],
            "DRAM": [f"{each.dram_bytes:,}" for each in rows],
            "cycles": [f"{each.cycles:,}" for each in rows],
            "ms": [f"{each.milliseconds:.3f}" for each in rows],
        }
        for name, amounts in {"flash": "flash_bytes", "DRAM": "dram_bytes"}.items():
            if not any(getattr(each, amounts) for each in rows):
                del columns[name]
        return list(columns), [list(row) for row in zip(*columns.values(), strict=True)]

    def _caption(self):
        first = next(iter(self.estimates.values()))
        return (
            f"{first.accelerator} at {first.clock_mhz:g} MHz, {first.system_config}, {first.memory_mode}; estimated by "
            f"{first.compiler}, not measured; bytes: of the file; weights: bytes in it, and encoded for the NPU; "
            "flash, SRAM: bytes; cycles, ms: of one inference, without what the CPU computes."
        )

    def _on_cpu(self):
        floats = [
            f"{name}: the NPU computes nothing of it, for it computes with integers alone: quantize the model first "
            '(`quantize_post_training(..., target="ethos-u")`; `keras-mot quantize --target ethos-u`)'
            for name, estimate in self.estimates.items()
            if estimate.off_npu and not estimate.cycles
        ]
        lines = [
            f"{name}: on the CPU: {line}"
            for name, estimate in self.estimates.items()
            for line in grouped_lines(estimate.off_npu)
        ]
        return floats + lines


def ethos_u(
    files: File | Sequence[File] | Mapping[str, File],
    accelerator: str = "ethos-u55-128",
    *,
    system_config: str | None = None,
    memory_mode: str | None = None,
    config: str | os.PathLike | None = None,
) -> EthosUReport:
    """Estimates memory, cycles and time of integer files on an Ethos-U NPU, by Arm's compiler Vela.

    It says which operators the NPU takes, and what keeps the others off it, by the names of your layers. Weights that
    are zero or repeat take less flash and less time to load: compare a dense file with a pruned and a clustered one.
    Nothing runs on an NPU here. The NPU computes the integers of the file: its accuracy is what `measure` says of it.

    Args:
        files: path of a `.tflite` file, or the result of an export, or several of these in a list or in a dictionary by
            names.
        accelerator: the NPU and its multiplications in a cycle, "ethos-u55-32" to "ethos-u55-256", "ethos-u65-256",
            "ethos-u65-512", or "ethos-u85-128" to "ethos-u85-2048".
        system_config: clock and bandwidths, by their name in Vela's configuration file; by default Vela's.
        memory_mode: which memory holds what, by its name there; by default Vela's.
        config: path of a configuration file of one's own.

    Returns:
        An `EthosUReport`.

    Raises:
        TypeError: an argument is of the wrong type.
        ValueError: a file is damaged or compiled already, an argument has a wrong value, or Vela fails at a file.
        ImportError: `ethos-u-vela` is not installed (the extra `ethos-u`).

    Example:

    ```python
    report = keras_mot.analysis.ethos_u({"dense": "dense.tflite", "pruned": "pruned.tflite"})
    print(report)
    print(report["pruned"].cycles / report["dense"].cycles)
    ```
    """
    settings = Settings(accelerator, system_config, memory_mode, config)
    named = _named(files)
    check_compiler()
    return EthosUReport({name: estimated(path, settings)[0] for name, path in named.items()})


def _named(files):
    """The paths by distinct names."""
    if isinstance(files, str | os.PathLike | Export):
        files = [files]
    if isinstance(files, Mapping):
        pairs = [(str(name), _path(file)) for name, file in files.items()]
    elif isinstance(files, list | tuple):
        pairs = [(path.name, path) for path in map(_path, files)]
    else:
        raise TypeError(f"`files` should be a path, or a list or dictionary of paths; received {describe(files)}.")
    if not pairs:
        raise ValueError("`files` is empty: pass one or more paths of `.tflite` files.")
    found = {}
    for name, path in pairs:
        count = sum(known == name or known.startswith(f"{name} (") for known in found)
        found[f"{name} ({count + 1})" if count else name] = path
    return found


def _path(file):
    return existing_file(file.path if isinstance(file, Export) else file)
