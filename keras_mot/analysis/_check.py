"""Whether a file maps to an accelerator."""

import os

from keras_mot._messages import describe, nearest
from keras_mot._numbers import is_whole
from keras_mot._packages import is_installed
from keras_mot.analysis import _limits_of_settings, _limits_of_shapes, _limits_of_tensors  # noqa: F401  (they register)
from keras_mot.analysis._limits import shown, violation
from keras_mot.analysis.check_report import CheckReport, Finding
from keras_mot.export.litert.ethos_u.compiling import existing_file
from keras_mot.export.litert.ethos_u.estimate import estimated
from keras_mot.export.litert.ethos_u.vela import Settings
from keras_mot.export.litert.layer_names import LayerNames
from keras_mot.export.litert.litert_file import parse_content, read_content
from keras_mot.export.litert.operator_view import graph_inputs, operator_views
from keras_mot.targets.rules import RULES

_COMPILED_FOR = {"ethos-u55": "ethos-u55-128", "ethos-u85": "ethos-u85-256"}
_ALIASES = {"ethos-u": "ethos-u55", "ethos-u65": "ethos-u55"}
_BROKEN = (AttributeError, IndexError, KeyError, TypeError, ValueError, ZeroDivisionError)
_NOT_WHOLE = "it lacks an input or a setting that operators of its kind have"


def check(path: str | os.PathLike, target: str, *, api_level: int | None = None, compiler: bool = True) -> CheckReport:
    """Checks a `.tflite` file against what an accelerator takes: types, scales, operators, shapes, limits.

    The rules are those that are published: Coral's table of operators for the Edge TPU, the checks of LiteRT's delegate
    for Android's NNAPI, Vela's report of supported operators for Ethos-U, the resolver of LiteRT for Microcontrollers.
    Where Vela is installed, it compiles files for Ethos-U, and says itself what it places on the NPU. For the others
    nothing is compiled or run, and the report says so: it finds what is known not to map, and no more.

    Args:
        path: of the file.
        target: "edgetpu", "nnapi", "ethos-u55" (also "ethos-u", and "ethos-u65", which has the same rules),
            "ethos-u85", or "micro".
        api_level: for "nnapi", the API level of Android, 27 (Android 8.1) to 30 (Android 11 and later, the default).
        compiler: whether a compiler is asked where it is installed, or rules alone.

    Returns:
        A `CheckReport`.

    Raises:
        TypeError: an argument is of the wrong type.
        ValueError: there is no such target or API level, or the file is damaged.
        ImportError: `ai-edge-litert` is not installed.

    Example:

    ```python
    report = keras_mot.analysis.check("model.tflite", target="edgetpu")
    print(report)
    assert report.maps
    ```
    """
    rules = _rules(target)
    level = _level(rules, api_level)
    if not isinstance(compiler, bool):
        raise TypeError(f"`compiler` should be True or False; received {describe(compiler)}.")
    path = existing_file(path)
    if compiler and rules.name in _COMPILED_FOR and is_installed("ethosu.vela"):
        return _compiled(path, target, Settings(_accelerator(target)))
    file = parse_content(*read_content(path))
    operators = list(operator_views(file))
    findings, unmapped, count = _of_inputs(file, rules), None, 0
    for operator in operators:
        reason = _reason(operator, rules, level)
        if reason is not None:
            findings.append(Finding(operator.layer, operator.name, reason))
            if unmapped is None and not _converts_an_input(operator):
                unmapped = operator
        elif unmapped is not None:
            count += 1
    return CheckReport(
        target=target,
        path=path,
        operators=len(operators),
        findings=tuple(findings),
        checked_by="rules",
        rules_only=True,
        source=rules.source,
        notes=_notes(rules, unmapped, count),
        api_level=level,
    )


def known_targets() -> tuple[str, ...]:
    """The names of targets that files can be checked for."""
    return tuple(sorted((*RULES, *_ALIASES)))


def _rules(target):
    if not isinstance(target, str):
        raise TypeError(f"`target` should be the name of a target; received {describe(target)}.")
    name = _ALIASES.get(target, target)
    if name not in RULES:
        raise ValueError(
            f"There are no rules of a target '{target}'.{nearest(target, known_targets())} Files can be checked for "
            f"{', '.join(known_targets())}."
        )
    return RULES[name]


def _level(rules, asked):
    if rules.levels is None:
        if asked is not None:
            raise ValueError(f"`api_level` is for 'nnapi'; the rules of '{rules.name}' depend on none.")
        return None
    lowest, highest = rules.levels
    if asked is None:
        return highest
    if not is_whole(asked):
        raise TypeError(f"`api_level` should be an integer; received {describe(asked)}.")
    if not lowest <= asked <= highest:
        raise ValueError(f"`api_level` should be from {lowest} to {highest}; received {asked}.")
    return asked


def _accelerator(target):
    return "ethos-u65-256" if target == "ethos-u65" else _COMPILED_FOR[_ALIASES.get(target, target)]


def _compiled(path, target, settings):
    estimate, _ = estimated(path, settings)
    return CheckReport(
        target=target,
        path=path,
        operators=estimate.operators,
        findings=tuple(Finding(each.layer, each.operator, each.reason) for each in estimate.off_npu),
        checked_by=f"{estimate.compiler}, which compiled it for {settings.accelerator}; nothing was run",
        rules_only=False,
        source=f"{estimate.compiler}",
    )


def _of_inputs(file, rules):
    """What is wrong with the inputs of a file."""
    found, names = [], LayerNames(file.subgraphs[0])
    for tensor in graph_inputs(file):
        if any(size < 0 for size in tensor.shape[rules.open_sizes :]):
            way = (
                "export with `batch_size=1` (`--batch-size 1`)"
                if tensor.shape[0] < 0 and min(tensor.shape[1:], default=0) >= 0
                else ""
            )
            expected = "all sizes fixed" if not rules.open_sizes else "all sizes but the first fixed"
            reason = f"it is {shown(tensor)}; {rules.title} wants {expected}" + (f": {way}" if way else "")
        elif rules.batch is not None and tensor.shape and tensor.shape[0] != rules.batch:
            reason = f"it is {shown(tensor)}; {rules.title} takes batches of {rules.batch}"
        else:
            continue
        found.append(Finding(names.of_tensor(tensor.name), "input", reason))
    return found


def _reason(operator, rules, level):
    """Why an operator does not map, or `None`."""
    if operator.name not in rules.operators:
        return f"{rules.title} has no such operator"
    source = operator.activation
    if source is not None and source.type not in rules.types:
        return f"it computes with {source.type}; {rules.title} takes {', '.join(sorted(rules.types))}"
    results = [each.type for each in operator.outputs if each.type not in rules.types]
    if results:
        return f"its result is {results[0]}; {rules.title} takes {', '.join(sorted(rules.types))}"
    try:
        found = (violation(each, operator, level) for each in rules.limits(operator.name))
        return next(filter(None, found), None)
    except _BROKEN:
        return _NOT_WHOLE


def _converts_an_input(operator):
    """Whether it makes integers of floats: a compiler leaves such at the beginning to the CPU, and goes on behind."""
    return operator.name == "QUANTIZE" and operator.activation is not None and operator.activation.type == "FLOAT32"


def _notes(rules, unmapped, behind):
    if not rules.in_one_part or unmapped is None or not behind:
        return ()
    return (
        f"The compiler for {rules.title} makes one part, of what comes first. What comes behind {unmapped.name} "
        f"('{unmapped.layer}') runs on the CPU, too: {behind} operators more.",
    )
