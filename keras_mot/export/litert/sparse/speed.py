"""Whether zeros make a `.tflite` file faster on Arm, by what XNNPACK demands of it, and what of that shows here."""

import dataclasses
import platform
from typing import Any

from keras_mot.export.litert.sparse.safety import check_sparse_safety

_ARM = ("aarch64", "arm64", "armv7l", "armv8l")


@dataclasses.dataclass(frozen=True)
class SparseSpeed:
    """What XNNPACK's sparse kernels do with a file on Arm, as its sources say.

    XNNPACK has sparse kernels for 1x1 convolutions of floats. It takes them for a part of a graph from a 3x3
    convolution of stride 2 over three channels to a global average or a depth-to-space, where more than two thirds of
    the 1x1 kernels' weights in it are zero (`xnn_subgraph_rewrite_for_nchw`), on Arm and on x86 without AVX. LiteRT
    asks for it where a file encodes weights sparsely (`XNN_FLAG_HINT_SPARSE_INFERENCE`).

    Attributes:
        applies: whether they compute a part of the file.
        layers: names of the kernels that they compute with.
        zeros: share of zeros among the weights of these, from 0 to 1.
        reason: why they do or do not.
        measurable: whether this machine has them, so that times that are measured here are theirs.
    """

    applies: bool
    layers: tuple[str, ...]
    zeros: float
    reason: str
    measurable: bool

    def to_dict(self) -> dict[str, Any]:
        """The same as a dictionary of JSON values."""
        return {**dataclasses.asdict(self), "layers": list(self.layers)}

    def __str__(self) -> str:
        if not self.applies:
            return f"zeros make nothing faster, on Arm neither: {self.reason}"
        here = "times that are measured here are with them"
        if not self.measurable:
            here = "that cannot be measured here, where XNNPACK computes with zeros as with any number"
        return (
            f"on Arm, XNNPACK's sparse kernels compute {len(self.layers)} 1x1 convolutions, of whose weights "
            f"{self.zeros:.0%} are zero; {here}"
        )


def sparse_speed(content: bytes, in_floats: bool, sparsely_encoded: bool) -> SparseSpeed:
    """What XNNPACK's sparse kernels do with a file that has many zeros.

    Args:
        content: of the file.
        in_floats: whether its kernels with many zeros are floats.
        sparsely_encoded: whether any weight is.
    """
    measurable = platform.machine().lower() in _ARM
    if not in_floats:
        return SparseSpeed(
            False, (), 0.0, "XNNPACK's sparse kernels compute with floats, not with integers", measurable
        )
    if not sparsely_encoded:
        reason = "no weight is sparsely encoded, and LiteRT asks for sparse kernels only then"
        return SparseSpeed(False, (), 0.0, reason, measurable)
    safety = check_sparse_safety(content)
    return SparseSpeed(safety.sparse_kernels, safety.layers, safety.zeros, safety.reason, measurable)
