"""What a runtime demands of a quantized model: a `Target`, and the list of those that are known by name."""

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from keras_mot._messages import describe, nearest
from keras_mot.graph.kinds import kind_of
from keras_mot.layers.activation_quantizer import activation_quantizers
from keras_mot.layers.dynamic_quantizer import dynamic_parts
from keras_mot.targets.costs import Cost, Costs
from keras_mot.transforms.grid import Grid

RUNTIMES = ("litert", "micro")
"""The runtimes that files can be proved in."""
_DYNAMIC = "dynamic"  # the `activation_bits` of schemes with dynamic ranges
_FILE_TYPES = ("float32", "int8", "uint8", "int16")


@dataclasses.dataclass(frozen=True)
class BiasForm:
    """How biases are stored, in units of the scale of the input times that of the weight.

    Args:
        bits: bits of an integer.
        limit: the largest magnitude of an integer, or `None` for all that the bits hold.
    """

    bits: int = 32
    limit: int | None = None

    def integers(self, bias: np.ndarray, steps: np.ndarray) -> np.ndarray:
        """The integers of a bias, in the type that stores them.

        Args:
            bias: float array.
            steps: float array that broadcasts to it: the scale of the input times those of the weight.
        """
        limits = np.iinfo(f"int{self.bits}")
        low, high = (limits.min, limits.max) if self.limit is None else (-self.limit, self.limit)
        ratios = np.asarray(bias, "float64") / np.asarray(steps, "float64")
        return np.clip(np.round(ratios), low, high).astype(limits.dtype)


@dataclasses.dataclass(frozen=True)
class Target:
    """A runtime that quantized models are made for.

    A target that differs from another in a few points is made by `dataclasses.replace(LITERT, name=..., ...)`. Models
    that are quantized for it save its name, so that it must be made known by `register`.

    Args:
        name: by which configurations and saved models know it.
        kernels: by the bits of activations, the names of the kinds of operations (`keras_mot.graph.kinds.Kind.name`)
            that have kernels for integers. The others compute in floats. Bits that are missing, the runtime does not
            have.
        activations: by their bits, the `Grid` of activations.
        ranks: numbers of the positions' axes that kernels take, `None` for kinds without such.
        fused: names of the activations that are computed in one step with what is before them.
        fixed_ranges: by the bits of activations, names of kinds with the (least, greatest) number that the runtime
            demands for their results.
        saturation: by the bits of activations, names of activations with the magnitude of inputs beyond which the
            result is its limit, to a step: inputs are cut off there.
        weight_bits: bits that files store weights in; others take the next larger ones.
        per_channel: by the bits that weights are stored in, the names of the kinds whose output channels may have a
            scale each. The others have one scale for the whole weight, whatever the scheme asks for.
        biases: by the bits of activations, the `BiasForm`.
        rounded_once: names of the kinds whose results reference kernels round once; those of the others, twice.
        tables: the bits of activations for which files may hold what becomes of each integer: so computes any function
            of each element (`keras_mot.graph.kinds.Kind.table`) that there is no kernel for.
        open_batch: whether files may leave the batch size open.
        floats: whether what has no kernel for integers may compute in floats. Where it may not, models with such are
            refused, but for what the user leaves in floats.
        file_type: the type of the inputs and outputs of files, where no other is asked for.
        operators: names of the operators that its runtime has, as files know them, or `None` for all.
        most_axes: by the names of operators, how many axes the tensors that they read may have, where that is limited.
        runtime: which runtime files are proved in: "litert", or "micro" for the interpreter of microcontrollers.
        accelerator: the NPU that files are compiled for, as Vela calls it ("ethos-u55-128"), or `None` for none. Files
            for an NPU take one sample at a time.
        costs: by the bits of activations, the `Costs` of integers beside floats, where these are known: by default,
            models for the target compute in floats what is faster so. Without, all that has kernels is in integers.
        dynamic: by the bits that weights are stored in, the names of the kinds that have kernels for such weights and
            activations in floats, whose ranges are found as they run.
        block_sizes: by the bits that weights are stored in, how many inputs may share a scale in these kernels.

    Example:

    ```python
    per_tensor = {bits: frozenset() for bits in LITERT.per_channel}
    mine = keras_mot.targets.register(dataclasses.replace(LITERT, name="mine", per_channel=per_tensor))
    quantized = quantize_post_training(model, INT8, x_train[:500], target=mine)
    ```
    """

    name: str
    kernels: Mapping[int, frozenset[str]]
    activations: Mapping[int, Grid]
    ranks: tuple[int | None, ...]
    fused: tuple[str, ...]
    fixed_ranges: Mapping[int, Mapping[str, tuple[float, float]]]
    saturation: Mapping[int, Mapping[str, float]]
    weight_bits: tuple[int, ...]
    per_channel: Mapping[int, frozenset[str]]
    biases: Mapping[int, BiasForm]
    rounded_once: frozenset[str] = frozenset()
    tables: frozenset[int] = frozenset()
    open_batch: bool = True
    floats: bool = True
    file_type: str = "float32"
    operators: frozenset[str] | None = None
    most_axes: Mapping[str, int] = dataclasses.field(default_factory=dict)
    runtime: str = "litert"
    accelerator: str | None = None
    costs: Mapping[int, Costs] = dataclasses.field(default_factory=dict)
    dynamic: Mapping[int, frozenset[str]] = dataclasses.field(default_factory=dict)
    block_sizes: Mapping[int, tuple[int, ...]] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        if not isinstance(self.name, str) or not self.name:
            raise ValueError(f"`name` should be a string that is not empty; received {describe(self.name)}.")
        for field in ("activations", "fixed_ranges", "saturation", "biases"):
            missing = set(self.kernels) - set(getattr(self, field))
            if missing:
                raise ValueError(
                    f"Target '{self.name}' has kernels for activations of {sorted(self.kernels)} bits; `{field}` says "
                    f"nothing of {sorted(missing)}."
                )
        for bits in self.kernels:
            if getattr(self.activations[bits], "bits", None) != bits:
                raise ValueError(
                    f"Target '{self.name}': `activations[{bits}]` should be a `Grid` of {bits} bits; received "
                    f"{describe(self.activations[bits])}."
                )
            for kind, (low, high) in self.fixed_ranges[bits].items():
                if not low < high:
                    raise ValueError(
                        f"Target '{self.name}': `fixed_ranges[{bits}]['{kind}']` should be the least and the greatest "
                        f"number; received {describe((low, high))}."
                    )
            for kind, reach in self.saturation[bits].items():
                if not reach > 0:
                    raise ValueError(
                        f"Target '{self.name}': `saturation[{bits}]['{kind}']` should be above 0; received "
                        f"{describe(reach)}."
                    )
        for field, known in (("runtime", RUNTIMES), ("file_type", _FILE_TYPES)):
            if getattr(self, field) not in known:
                raise ValueError(
                    f"Target '{self.name}': `{field}` should be one of {', '.join(map(repr, known))}; received "
                    f"{describe(getattr(self, field))}."
                )
        for field in ("open_batch", "floats"):
            if not isinstance(getattr(self, field), bool):
                raise ValueError(
                    f"Target '{self.name}': `{field}` should be True or False; received "
                    f"{describe(getattr(self, field))}."
                )
        if not isinstance(self.accelerator, str | None):
            raise ValueError(
                f"Target '{self.name}': `accelerator` should be a name, or None; received {describe(self.accelerator)}."
            )
        if self.operators is not None and not _holds(self.operators, str):
            raise ValueError(
                f"Target '{self.name}': `operators` should be a set of names, or None; received "
                f"{describe(self.operators)}."
            )
        if not (isinstance(self.most_axes, Mapping) and _holds(self.most_axes.values(), int)):
            raise ValueError(
                f"Target '{self.name}': `most_axes` should have a number of axes for each name; received "
                f"{describe(self.most_axes)}."
            )
        for bits, costs in self.costs.items():
            if bits not in self.kernels or not isinstance(costs, Costs):
                raise ValueError(
                    f"Target '{self.name}': `costs[{bits}]` should be the `Costs` of activations of "
                    f"{' or '.join(map(str, sorted(self.kernels)))} bits; received {describe(costs)}."
                )
        if not self.weight_bits:
            raise ValueError(f"Target '{self.name}': `weight_bits` is empty; a file stores weights in some bits.")
        missing = set(self.weight_bits) - set(self.per_channel)
        if missing:
            raise ValueError(
                f"Target '{self.name}' stores weights in {sorted(self.weight_bits)} bits; `per_channel` says nothing "
                f"of {sorted(missing)}."
            )

    def has_kernel(self, operation: Any, bits: int) -> bool:
        """Whether there is a kernel that computes an operation in integers.

        Args:
            operation: a layer, or an operation of `keras.ops`.
            bits: bits of activations.
        """
        kind = kind_of(operation)
        if kind is None or getattr(operation, "data_format", "channels_last") == "channels_first":
            return False
        if kind.rank not in self.ranks:
            return False
        return kind.name in self.kernels[bits] or self.has_table(operation, bits)

    def has_table(self, operation: Any, bits: int) -> bool:
        """Whether a table of what becomes of each integer computes an operation, and no kernel; arguments as before."""
        kind = kind_of(operation)
        return kind is not None and kind.table and bits in self.tables and kind.name not in self.kernels[bits]

    def cost(self, operation: Any, bits: int) -> Cost:
        """The `Cost` of an operation; of one that the target knows none of, no time."""
        costs, kind = self.costs[bits], kind_of(operation)
        if self.has_table(operation, bits):
            return costs.table
        return costs.of(None if kind is None else kind.name)

    def stored_bits(self, bits: int) -> int:
        """The bits that files store weights of so many bits in; raises a `ValueError` if there are none."""
        stored = min((each for each in self.weight_bits if each >= bits), default=None)
        if stored is None:
            raise ValueError(
                f"Target '{self.name}' stores weights in at most {max(self.weight_bits)} bits; the scheme asks for "
                f"{bits}."
            )
        return stored

    def scheme_of(self, layer: Any, scheme: Any) -> Any:
        """The `QuantizationScheme` of a layer's weights: the given one, or that with one scale for the whole weight."""
        stored = self.stored_bits(scheme.weight_bits)
        if not scheme.per_channel or kind_of(layer).name in self.per_channel[stored]:
            return scheme
        return dataclasses.replace(scheme, per_channel=False)

    def check(self, scheme: Any) -> None:
        """Raises a `ValueError` if the target is not registered, or has no kernels for the activations of a scheme."""
        if _TARGETS.get(self.name) != self:
            raise ValueError(
                f"Target '{self.name}' is not registered, so that a saved model could not find it again: call "
                "`keras_mot.targets.register(target)` before, in a module that is imported where the model is loaded."
            )
        if scheme.activation_bits == _DYNAMIC:
            self._check_dynamic(scheme)
        elif scheme.activation_bits not in self.kernels:
            raise ValueError(
                f"Target '{self.name}' has kernels for activations of {sorted(self.kernels)} bits; the scheme asks for "
                f"{scheme.activation_bits}."
            )

    def _check_dynamic(self, scheme):
        stored = self.stored_bits(scheme.weight_bits)
        if stored not in self.dynamic:
            has = f"for weights of {sorted(self.dynamic)} bits" if self.dynamic else "for none"
            raise ValueError(
                f"Target '{self.name}' has kernels with dynamic ranges {has}; the scheme asks for {scheme.weight_bits}."
            )
        sizes = self.block_sizes.get(stored, ())
        if scheme.block_size is not None and scheme.block_size not in sizes:
            what = f"of {', '.join(map(str, sizes))} inputs" if sizes else "of no size"
            raise ValueError(
                f"Target '{self.name}' has kernels for weights of {stored} bits in blocks {what}; the scheme asks for "
                f"{scheme.block_size}."
            )


def _holds(values, kind):
    """Whether there are several values, and all of a type."""
    several = isinstance(values, Collection) and not isinstance(values, str)
    return several and all(isinstance(each, kind) and not isinstance(each, bool) for each in values)


_TARGETS = {}


def register(target: Target) -> Target:
    """Makes a target known by its name.

    Args:
        target: a `Target`.

    Returns:
        The target.

    Raises:
        TypeError: if it is no `Target`.
        ValueError: if another target has this name.
    """
    if not isinstance(target, Target):
        raise TypeError(f"`register` expects a `Target`; received {describe(target)}.")
    if _TARGETS.setdefault(target.name, target) != target:
        raise ValueError(f"There is another target named '{target.name}': choose another `name`.")
    return target


def get(target: str | Target) -> Target:
    """The target of a name; a `Target` is returned as it is.

    Raises:
        TypeError: if it is neither.
        ValueError: if no target has this name.
    """
    if isinstance(target, Target):
        return target
    if not isinstance(target, str):
        raise TypeError(f"`target` should be a `Target` or the name of one; received {describe(target)}.")
    if target not in _TARGETS:
        raise ValueError(
            f"There is no target '{target}', only {', '.join(sorted(_TARGETS))}.{nearest(target, _TARGETS)} Import the "
            "module that makes one of your own known by `keras_mot.targets.register`."
        )
    return _TARGETS[target]


def target_of(model: Any) -> Target:
    """The target that a quantized model was made for, as its quantizers of activations remember."""
    quantizers = activation_quantizers(model) or dynamic_parts(model)
    if not quantizers:
        raise ValueError(f"'{model.name}' is not quantized: it was made for no target.")
    return get(quantizers[0].target)
