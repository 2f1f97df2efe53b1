"""`keras-mot pack` and `keras-mot unpack`: files for the way to devices."""

import argparse
import dataclasses
import pathlib

from keras_mot.cli import _options
from keras_mot.cli._errors import UsageError, blamed_on_input
from keras_mot.cli._files import existing_file, writable_file
from keras_mot.cli._result import Result

_SUFFIX = ".kmot"  # as `packing.SUFFIX`, which comes with a backend

_PACK = """\
Packs a file for download: compressed by Brotli or, with `--base`, as what is
different from an older version that devices have. Checksums come with it."""

_UNPACK = """\
Writes the file that is packed in a package, if all checksums are right. A
difference needs the older version, `--base`."""


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Adds both commands to the parser."""
    for name, what, description, run_command, example in (
        ("pack", "a file", _PACK, run_pack, "keras-mot pack new.tflite --base old.tflite -o update.kmot"),
        ("unpack", "a package", _UNPACK, run_unpack, "keras-mot unpack update.kmot --base old.tflite -o new.tflite"),
    ):
        parser = commands.add_parser(
            name,
            help={"pack": "compress a file for download", "unpack": "write the file of a package"}[name],
            description=description,
            epilog=f"example:\n  {example}",
        )
        parser.add_argument("file", metavar="FILE", help=what)
        parser.add_argument("--base", metavar="FILE", help="the older version of the file")
        _options.add_output(parser, "package to write, .kmot" if name == "pack" else "file to write")
        parser.set_defaults(run=run_command, check=check_pack if name == "pack" else check)


def check(options: argparse.Namespace) -> None:
    """Finds what is wrong with the arguments, before a backend is loaded."""
    existing_file(options.file, "a file")
    if options.base is not None:
        existing_file(options.base, "the older version of the file")


def check_pack(options: argparse.Namespace) -> None:
    """The same for `pack`."""
    check(options)
    writable_file(options.output, _SUFFIX)


def run_pack(options: argparse.Namespace) -> Result:
    """Runs `pack`."""
    from keras_mot.export.packing import pack

    with blamed_on_input():
        package = pack(options.file, options.output, options.base)
    return Result(str(package), {**dataclasses.asdict(package), "path": str(package.path)})


def run_unpack(options: argparse.Namespace) -> Result:
    """Runs `unpack`."""
    from keras_mot.export.packing import package_of, unpack

    with blamed_on_input():
        package = package_of(options.file)
        if package.base_sha256 is not None and options.base is None:
            raise UsageError(
                f"'{options.file}' holds what is different from an older file: name that one by `--base FILE`. Its "
                f"checksum begins with {package.base_sha256[:12]}."
            )
        path = unpack(options.file, options.output, options.base)
    size = pathlib.Path(path).stat().st_size
    return Result(f"{path}: {size:,} bytes, '{package.name}'", {"path": str(path), "bytes": size, "name": package.name})
