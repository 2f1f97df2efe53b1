"""The formats that models are exported to: recipes, measuring and the command line know a file by its entry here.

A format of another runtime is one more entry in `FORMATS`, and a module with the functions that `Format` names.
"""

import dataclasses
import importlib
import pathlib
import types

from keras_mot._packages import how_to_install, is_installed


@dataclasses.dataclass(frozen=True)
class Format:
    """What a kind of exported file is called, and what writes, reads and runs it.

    Args:
        name: in reports, such as `Measurement.kind`.
        runtime: the name of its runtime.
        suffix: what paths of such files end in.
        written_with: packages that exporting needs.
        run_with: packages that running needs.
        module: name of the module, imported where it is needed, with five functions: `export(model, path, **options)`,
            which returns a `keras_mot.export.Export` that is a frozen dataclass; `runner(path, num_threads,
            input_names)`, which loads a file into the runtime; `parameters(path)`, the constant tensors in a file;
            `operators(path)`, how often it has which; and `recognizes(content)`, whether a file begins like one of this
            format.
    """

    name: str
    runtime: str
    suffix: str
    written_with: tuple[str, ...]
    run_with: tuple[str, ...]
    module: str

    @property
    def functions(self) -> types.ModuleType:
        """The module, imported."""
        return importlib.import_module(self.module)

    def check_written(self) -> None:
        """Raises an ImportError that says what to install, if such files cannot be written and run here."""
        self._check(self.written_with + self.run_with)

    def check_run(self) -> None:
        """The same, if such files cannot be run here."""
        self._check(self.run_with)

    def _check(self, packages):
        missing = [package for package in packages if not is_installed(package)]
        if missing:
            names, are = ", ".join(f"'{package}'" for package in missing), "are" if len(missing) > 1 else "is"
            raise ImportError(
                f"{names} {are} needed for {self.runtime} files, and {are} not installed. Install with: "
                f"{how_to_install(*missing)}"
            )


FORMATS = {
    "litert": Format(
        "litert", "LiteRT", ".tflite", ("tensorflow",), ("ai_edge_litert",), "keras_mot.export.litert.file_format"
    ),
    "onnx": Format(
        "onnx",
        "ONNX",
        ".onnx",
        ("tensorflow", "ai_edge_litert", "onnx"),
        ("onnx", "onnxruntime"),
        "keras_mot.export.onnx.file_format",
    ),
}
DEFAULT = FORMATS["litert"]
"""The format of recipes, and of what the command line writes beside models."""
KERAS = ".keras"


def suffixes() -> tuple[str, ...]:
    """What paths of exported files end in."""
    return tuple(each.suffix for each in FORMATS.values())


def format_of_name(path: str | pathlib.Path) -> Format | None:
    """The format whose suffix a path has, or `None`."""
    suffix = pathlib.Path(path).suffix
    return next((each for each in FORMATS.values() if each.suffix == suffix), None)


def format_of_content(path: pathlib.Path) -> Format | None:
    """The format that a file begins like, whatever its name, or `None`."""
    with path.open("rb") as file:
        beginning = file.read(8)
    return next((each for each in FORMATS.values() if each.functions.recognizes(beginning)), None)
