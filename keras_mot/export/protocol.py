"""What recipes, analysis and the command line know of an exported file, whatever its format."""

import pathlib
from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class Export(Protocol):
    """What an exporter returns: a file, and how it runs.

    Attributes:
        path: path of the file.
        bytes: its size.
        input_names: names of its inputs in the order of the Keras model's.
        output_names: names of its outputs in the order of the Keras model's.
    """

    path: pathlib.Path
    bytes: int
    input_names: tuple[str, ...]
    output_names: tuple[str, ...]

    def run(self, inputs: Any) -> Any:
        """The outputs of the file for a batch, computed by its runtime.

        Args:
            inputs: as the Keras model takes them, or a list in the order of `input_names`, or a dictionary of these
                names; the batch first.

        Returns:
            NumPy arrays in the structure of the Keras model's outputs, integers as the floats they stand for.
        """

    def __str__(self) -> str:
        """What was written, in a few lines."""
