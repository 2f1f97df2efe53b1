"""`keras-mot compress`: runs a recipe on a saved model."""

import argparse
import pathlib

from keras_mot.cli import _options
from keras_mot.cli._errors import FailedError, UsageError, blamed_on_input
from keras_mot.cli._models import load_model
from keras_mot.cli._options import by_output, check_inputs
from keras_mot.cli._result import Result

_DESCRIPTION = """\
Runs a recipe on a saved Keras model: prunes, clusters, quantizes and fine-tunes it, and exports and measures each
stage. A run that was stopped goes on after its last finished stage when it is started again."""

_EPILOG = """\
The recipe is the name of a preset or a YAML file; `keras-mot compress --show RECIPE` prints one to start from. The data
are the arrays x_train and y_train, and optionally x_test and y_test (or x_val and y_val) to measure on. A model of
several inputs or outputs has an array for each: x_train/NAME, y_train/NAME, as numpy.savez(file, **{"x_train/NAME":
...}) writes them. DIR receives a `.keras` checkpoint and a `.tflite` file for each stage, run.json, report.json and
report.md."""


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Adds the command to the parser."""
    parser = commands.add_parser(
        "compress",
        help="run a recipe: prune, cluster, quantize, fine-tune, export and measure",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.HelpFormatter,
    )
    parser.add_argument("model", metavar="MODEL.keras", nargs="?", help="the trained model")
    parser.add_argument("--recipe", metavar="R", help="a preset, or a YAML file")
    parser.add_argument("--data", metavar="FILE.npz", help="arrays to train and measure on")
    parser.add_argument("-o", "--output", metavar="DIR", help="folder for the files of the run")
    for_outputs = "; for one of several outputs OUTPUT=NAME, which may be repeated"
    parser.add_argument(
        "--loss",
        metavar="NAME",
        action="append",
        help=f"a Keras loss (default: that of the model, else inferred){for_outputs}",
    )
    parser.add_argument(
        "--metric",
        metavar="NAME",
        action="append",
        help="accuracy, f1, precision, recall, auc, top5, mae, mse, rmse, r2 or a Keras metric (default: what suits "
        f"the labels){for_outputs}",
    )
    integers = parser.add_argument_group("files that compute in integers")
    types = ["float32", "int8", "uint8", "int16"]
    integers.add_argument("--input-type", choices=types, help="what the file takes (default: that of the recipe)")
    integers.add_argument("--output-type", choices=types, help="what it returns (default: that of the recipe)")
    integers.add_argument("--strict", action="store_true", help="refuse what would be computed in floats")
    _options.add_target(integers, default=None)
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="(default: 0)")
    parser.add_argument("--restart", action="store_true", help="begin anew, and remove the old files of a run in DIR")
    parser.add_argument("--show", metavar="RECIPE", help="print a recipe as YAML, and do nothing else")
    parser.add_argument("--list", action="store_true", help="list the presets, and do nothing else")
    parser.set_defaults(run=run, check=check)


def check(options: argparse.Namespace) -> None:
    """Finds what is wrong with the arguments, before a backend is loaded."""
    if options.list or options.show is not None:
        return
    missing = [name for name in ("model", "recipe", "data", "output") if getattr(options, name) is None]
    if missing:
        names = {"model": "MODEL.keras", "recipe": "--recipe", "data": "--data", "output": "--output"}
        raise UsageError(f"The following arguments are required: {', '.join(names[name] for name in missing)}.")
    check_inputs(options)


def run(options: argparse.Namespace) -> Result:
    """Runs the command."""
    if options.list:
        from keras_mot.cli._presets import PRESET_NOTES

        width = max(map(len, PRESET_NOTES))
        lines = [f"{name:{width}}  {note}" for name, note in PRESET_NOTES.items()]
        return Result("\n".join(lines), {"presets": dict(PRESET_NOTES)})
    if options.show is not None:
        from keras_mot.recipes import find_recipe

        with blamed_on_input():
            text = find_recipe(options.show).to_yaml()
        return Result(text, {"recipe": text})
    from keras_mot.cli._data import check_names_and_shapes, load_data
    from keras_mot.recipes import compress, find_recipe
    from keras_mot.recipes.closing import closing_lines

    with blamed_on_input():
        recipe = _with_integers(find_recipe(options.recipe), options)
    _check_model_stays(options)
    metric, loss = by_output("--metric", options.metric), by_output("--loss", options.loss)
    data = load_data(options.data)
    model = load_model(options.model, compile=True)
    with blamed_on_input():
        check_names_and_shapes(data, model)
    try:
        with blamed_on_input():
            result = compress(
                model,
                recipe,
                (data.x, data.y),
                None if data.evaluation_name == "x_train" else data.evaluation,
                metric=metric,
                loss=loss,
                output_dir=options.output,
                resume=not options.restart,
                seed=options.seed,
            )
    except FloatingPointError as error:
        raise FailedError(str(error)) from error
    return Result("\n".join([str(result), *closing_lines(result)]), result.to_dict())


def _check_model_stays(options):
    """Refuses to begin anew where the given model is a file of the old run, which is removed."""
    from keras_mot.recipes.run_folder import is_file_of_a_stage

    model, output = pathlib.Path(options.model).resolve(), pathlib.Path(options.output).resolve()
    if options.restart and model.parent == output and is_file_of_a_stage(model.name):
        raise UsageError(
            f"`--restart` removes the files of the run in '{options.output}', and '{options.model}' is one."
        )


def _with_integers(recipe, options):
    """The recipe with what the command line says of the integers of its files."""
    import dataclasses

    from keras_mot.recipes.quantizing_stages import Quantization

    names = [name for name in ("input_type", "output_type", "strict", "target") if getattr(options, name)]
    if not names:
        return recipe
    if not recipe.quantizes:
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in names)
        raise UsageError(f"Recipe '{recipe.name}' has no stage that quantizes activations: {flags} cannot be had.")
    changes = {name: getattr(options, name) for name in names}
    stages = [
        dataclasses.replace(stage, **changes) if isinstance(stage, Quantization) else stage for stage in recipe.stages
    ]
    return dataclasses.replace(recipe, stages=tuple(stages))
