"""What Vela says of a file: what runs on the NPU, what does not and why, memory, cycles and time."""

import dataclasses
import re
from collections.abc import Callable
from typing import Any

from keras_mot._messages import shortened
from keras_mot.export.litert.ethos_u.vela import Compiled, Settings, compile_content, summary_of
from keras_mot.export.litert.integers.operators import named_operators
from keras_mot.export.litert.layer_names import LayerNames, label_of
from keras_mot.export.litert.litert_file import parse_content, read_content

_NO_REASON = "Vela gives no reason"


@dataclasses.dataclass(frozen=True)
class OffNpu:
    """An operator that the NPU does not take, so that the CPU beside it computes it.

    Attributes:
        layer: the layer of yours that it belongs to.
        operator: its name in the file.
        reason: what keeps it off the NPU, in Vela's words.
    """

    layer: str
    operator: str
    reason: str


@dataclasses.dataclass(frozen=True)
class LayerCost:
    """What Vela estimates for the operators of a layer on the NPU.

    Attributes:
        layer: the layer.
        cycles: clock cycles. Loading weights and computing overlap, so that these need not add up to those of the file.
        macs: multiplications.
    """

    layer: str
    cycles: int
    macs: int


@dataclasses.dataclass(frozen=True)
class EthosUEstimate:
    """What Vela estimates for one inference of a file. What the CPU computes is not in it.

    Attributes:
        accelerator: the configuration of the NPU.
        system_config: clock and bandwidths that are assumed, by their name in Vela's configuration file.
        memory_mode: what is assumed to lie in which memory, by its name there.
        compiler: the compiler and its version.
        clock_mhz: clock of the NPU.
        operators: how many operators the file has.
        off_npu: an `OffNpu` for each that the NPU does not take.
        flash_bytes: constants in flash: weights as the NPU decodes them, biases, commands.
        sram_bytes: SRAM that activations and weights on their way need.
        dram_bytes: DRAM, for memory modes that have some.
        weight_bytes: the weights in the file.
        encoded_weight_bytes: the same, encoded for the NPU.
        macs: multiplications of one inference.
        cycles: clock cycles of one inference.
        milliseconds: these, at the clock.
        bytes: size of the file that was compiled.
        compiled_bytes: size of the compiled file.
        layers: a `LayerCost` for each layer, in the order of the file.
    """

    accelerator: str
    system_config: str
    memory_mode: str
    compiler: str
    clock_mhz: float
    operators: int
    off_npu: tuple[OffNpu, ...]
    flash_bytes: int
    sram_bytes: int
    dram_bytes: int
    weight_bytes: int
    encoded_weight_bytes: int
    macs: int
    cycles: int
    milliseconds: float
    bytes: int
    compiled_bytes: int
    layers: tuple[LayerCost, ...]

    @property
    def npu_operators(self) -> int:
        """How many operators run on the NPU, or disappear when it is compiled for it."""
        return self.operators - len(self.off_npu)

    def to_dict(self) -> dict[str, Any]:
        """The estimate as a dictionary of JSON values."""
        values = dataclasses.asdict(self)
        for name in ("off_npu", "layers"):
            values[name] = list(values[name])
        return {**values, "npu_operators": self.npu_operators}

    def __str__(self) -> str:
        memories = {"flash": self.flash_bytes, "SRAM": self.sram_bytes, "DRAM": self.dram_bytes}
        memory = ", ".join(f"{size:,} of {name}" for name, size in memories.items() if size)
        lines = [
            f"{self.accelerator} ({self.compiler}, {self.system_config}, {self.memory_mode}): "
            f"{self.npu_operators} of {self.operators} operators on the NPU; bytes: {memory or 'none'}; "
            f"{self.cycles:,} cycles, {self.milliseconds:.3f} ms (estimated)"
        ]
        lines += [f"  on the CPU: {each.operator} ({each.layer}): {each.reason}" for each in self.off_npu]
        return "\n".join(lines)


def estimated(
    source: Any, settings: Settings, layer_of: Callable[[str], str | None] = lambda label: None
) -> tuple[EthosUEstimate, Compiled]:
    """Compiles a file, and says what came of it.

    Args:
        source: path of a `.tflite` file, or its content.
        settings: the `Settings`.
        layer_of: function from the name of a tensor to the layer that it comes from, or `None` where that is not known.

    Returns:
        The `EthosUEstimate`, and the `Compiled` file.

    Raises:
        ImportError: if Vela is not installed.
        ValueError: if the file is damaged, compiled already, or one that Vela fails at.
    """
    content, label = read_content(source)
    file = parse_content(content, label)
    names = {id(graph): LayerNames(graph) for graph in file.subgraphs}
    operators = []
    for graph, name, operator in named_operators(file):
        if name == "ethos-u":
            raise ValueError(f"{label} is compiled for Ethos-U already: pass the file that it was made from.")
        labels = [label_of(graph.tensors[int(index)]) for index in operator.outputs]
        layer = next(filter(None, map(layer_of, labels)), None) or names[id(graph)].of(operator)
        operators.append((name, labels, layer))
    compiled = compile_content(content, settings, label)
    on_cpu = {row["Name"] for row in compiled.rows if row["Target"] == "CPU"}
    layers = _layers(file, operators)
    off = tuple(
        OffNpu(layer, name, _reason(compiled, name, labels, layers))
        for name, labels, layer in operators
        if not on_cpu.isdisjoint(labels)
    )
    estimate = EthosUEstimate(
        accelerator=settings.accelerator,
        compiler=f"Vela {compiled.version}",
        operators=len(operators),
        off_npu=off,
        bytes=len(content),
        compiled_bytes=len(compiled.content),
        layers=_costs(compiled, operators),
        **summary_of(compiled),
    )
    return estimate, compiled


def _layers(file, operators):
    """The layers of all tensors, by name: those that compute them, or, of inputs, what they are called."""
    found = {}
    for graph in file.subgraphs:
        names = LayerNames(graph)
        found |= {label: names.of_tensor(label) for label in map(label_of, graph.tensors) if label}
    return found | {label: layer for _, labels, layer in operators for label in labels}


def _reason(compiled, name, labels, layers):
    """Why an operator is off the NPU; what Vela makes of its fused activation has its result, too."""
    found = [text for (operator, label), text in compiled.reasons.items() if label in labels and operator == name]
    found += [text for (_, label), text in compiled.reasons.items() if label in labels]
    if not found:
        return _NO_REASON
    for label in sorted(layers, key=len, reverse=True):
        if label in found[0]:
            named = f"('{layers[label]}')"
            found[0] = re.sub(rf"\({re.escape(label)}(_\w+)?\)", lambda _, named=named: named, found[0])
    return shortened(found[0], 300)


def _layer_of_part(name, layers):
    """The layer of an operator that Vela has made of another one; its name where that is not known."""
    found = max((label for label in layers if label and name.startswith(label)), key=len, default=None)
    return name if found is None else layers[found]


def _costs(compiled, operators):
    """A `LayerCost` for each layer; what Vela makes of an operator, it names after the result of that."""
    layers = {label: layer for _, labels, layer in operators for label in labels}
    cycles, macs = {}, {}
    for row in compiled.rows:
        if row["Target"] == "CPU":
            continue
        layer = layers.get(row["Name"]) or _layer_of_part(row["Name"], layers)
        cycles[layer] = cycles.get(layer, 0) + round(float(row["Op Cycles"]))
        macs[layer] = macs.get(layer, 0) + round(float(row["MAC Count"]))
    return tuple(LayerCost(layer, cycles[layer], macs[layer]) for layer in cycles)
