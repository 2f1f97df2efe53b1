"""`keras-mot doctor`: what is installed, what is missing, and the command that installs it."""

import argparse
import dataclasses
import importlib.metadata

from keras_mot._tables import text_table, wrapped
from keras_mot.cli._errors import EXIT_FAILED, FailedError
from keras_mot.cli._result import Result

_DESCRIPTION = """\
Shows Python, the backends and all that the extras bring: which version there
is, whether it loads, and the command that installs what is missing. Ends with
1 if something that is needed is missing, or does not work."""


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Adds the command to the parser."""
    parser = commands.add_parser(
        "doctor",
        help="show what is installed, what is missing, and how to install it",
        description=_DESCRIPTION,
        epilog="example:\n  keras-mot doctor",
    )
    parser.add_argument("--fast", action="store_true", help="look at versions only, and load nothing")
    parser.set_defaults(run=run, without_library=True)


def run(options: argparse.Namespace) -> Result:
    """Runs the command."""
    from keras_mot._installation import PURPOSES, installation

    try:
        found = installation(load=not options.fast)
    except importlib.metadata.PackageNotFoundError as error:
        raise FailedError(
            "keras-mot runs from a folder, and is not installed: pip install . in its checkout."
        ) from error
    rows = [
        (each.name, each.versions or "any", each.found or "", each.extra, PURPOSES.get(each.extra, ""), each.state)
        for each in found.requirements
    ]
    head = (
        f"keras-mot {found.package}, Python {found.python}, {found.system}. Keras takes the backend '{found.backend}': "
        f"{found.backend_from}."
    )
    table = text_table(["package", "asked for", "installed", "extra", "for", "state"], rows)
    parts = [wrapped(head), table]
    parts += [f"{extra} ({PURPOSES.get(extra, '')}): {why}" for extra, why in found.unavailable.items()]
    missing = _by_extra(each for each in found.requirements if each.found is None and each.extra)
    if missing:
        parts.append("To install what is missing:")
        parts += [f"  {extra}: {command}" for extra, command in missing.items()]
    parts += [f"PROBLEM: {line}" for line in found.problems] or ["All that is needed is there, and works."]
    data = {
        **{name: getattr(found, name) for name in ("package", "python", "system", "backend", "backend_from")},
        "packages": [{**dataclasses.asdict(each), "state": each.state} for each in found.requirements],
        "unavailable": found.unavailable,
        "install": missing,
        "problems": found.problems,
    }
    return Result("\n".join(parts), data, EXIT_FAILED if found.problems else 0)


def _by_extra(requirements):
    """The command for each extra."""
    found = {}
    for each in requirements:
        found.setdefault(each.extra, []).append(f'"{each.name}{each.versions}"')
    return {extra: f"pip install {' '.join(packages)}" for extra, packages in found.items()}
