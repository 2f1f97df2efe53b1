"""`keras-mot prune`: prunes a saved model while fine-tuning it, and writes the small one."""

import argparse

from keras_mot.cli import _options
from keras_mot.cli._errors import UsageError
from keras_mot.cli._fine_tuned import prepare, result_of, train_and_write
from keras_mot.cli._result import Result

_DESCRIPTION = """\
Prunes a saved Keras model while fine-tuning it, and writes the small model. The
sparsity rises over the first three quarters of the training; the rest lets the
remaining weights recover."""

_EPILOG = f"""\
{_options.PLAIN_OUTPUTS}

example:
  keras-mot prune model.keras --data data.npz --sparsity 0.8 -o small.keras"""


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Adds the command to the parser."""
    parser = commands.add_parser(
        "prune",
        help="prune a saved model while fine-tuning it",
        description=_DESCRIPTION,
        epilog=_EPILOG,
    )
    _options.add_model(parser)
    _options.add_data(parser, "arrays to train and evaluate on")
    _options.add_plain_outputs(parser)
    how = parser.add_argument_group("what is pruned")
    how.add_argument("--sparsity", type=float, metavar="S", help="final fraction of zeros, in [0, 1), such as 0.9")
    how.add_argument("--initial-sparsity", type=float, metavar="S", help="fraction at the start (default: 0.5 or less)")
    pattern = how.add_mutually_exclusive_group()
    pattern.add_argument("--block", type=_block, metavar="RxC", help="prune blocks of inputs x outputs, such as 1x2")
    pattern.add_argument(
        "--n-m", type=_n_m, metavar="N:M", help="N zeros in every M inputs, such as 2:4; fixes the sparsity"
    )
    pattern.add_argument(
        "--channels",
        action="store_true",
        help="prune whole channels, but not those of the outputs, and cut them out at the end",
    )
    how.add_argument(
        "--round-to",
        type=_options.positive(int),
        metavar="N",
        help="with --channels: cut them out before the training, those that are joined by one score, so that layers "
        "keep multiples of N channels, such as 8",
    )
    how.add_argument(
        "--scope",
        choices=["layer", "model"],
        default="layer",
        help="what is ranked together (default: layer)",
    )
    _options.add_skip(how)
    _options.add_include_depthwise(how)
    training = _options.add_training(parser, epochs=2, learning_rate=1e-3)
    training.add_argument(
        "--frequency",
        type=_options.positive(int),
        default=100,
        metavar="N",
        help="steps between updates (default: 100)",
    )
    parser.set_defaults(run=run, check=check)


def check(options: argparse.Namespace) -> None:
    """Finds what is wrong with the arguments, before a backend is loaded."""
    _options.check_expressions(options.skip)
    _sparsities(options)
    _check_round_to(options)
    _options.check_inputs(options)
    _options.plain_outputs(options)


def run(options: argparse.Namespace) -> Result:
    """Runs the command."""
    import keras_mot
    from keras_mot.recipes import Prune, PruneChannels
    from keras_mot.recipes.stages import PRUNING_SHARE

    initial, final = _sparsities(options)
    outputs = _options.plain_outputs(options)
    if options.round_to is not None:
        plan = prepare(
            options, outputs, lambda fine_tune: PruneChannels(final, options.round_to, options.skip, fine_tune)
        )
        return result_of(train_and_write(plan, "pruning", lambda trained: trained), (), "pruned")

    def stage_of(fine_tune):
        return Prune(
            final,
            initial,
            options.block,
            options.n_m,
            options.channels,
            options.scope,
            frequency=options.frequency,
            skip=options.skip,
            fine_tune=fine_tune,
            include_depthwise=options.include_depthwise or None,
        )

    def change(stage, model, run):  # masks are updated as often as was asked for, however short the training
        return stage.pruned(model, int(run.steps(stage.fine_tune) * PRUNING_SHARE), stage.frequency)

    def finish(pruned):
        small = keras_mot.sparsity.strip_pruning(pruned)
        return keras_mot.sparsity.remove_pruned_channels(small) if options.channels else small

    plan = prepare(options, outputs, stage_of, change)
    trained = train_and_write(plan, "pruning", finish)
    return result_of(trained, keras_mot.sparsity.pruning_report(plan.changed).left_alone, "pruned")


def _check_round_to(options):
    if options.round_to is None:
        return
    if not options.channels:
        raise UsageError("`--round-to` is a number of channels: give `--channels`, too.")
    for name in ("initial_sparsity", "include_depthwise"):
        if getattr(options, name):
            option = f"--{name.replace('_', '-')}"
            raise UsageError(f"`--round-to` cuts channels out before the training: leave `{option}` out.")
    if options.scope != "layer":
        raise UsageError("`--round-to` ranks the channels of layers that are joined: leave `--scope model` out.")


def _sparsities(options):
    """The initial and the final sparsity."""
    final = options.sparsity
    if options.n_m is not None:
        fixed = options.n_m[0] / options.n_m[1]
        if final is not None and abs(final - fixed) > 1e-9:
            raise UsageError(f"`--n-m` fixes the sparsity at {fixed:g}: leave `--sparsity {final:g}` out.")
        if options.initial_sparsity is not None:
            raise UsageError(f"`--n-m` fixes the sparsity at {fixed:g}: leave `--initial-sparsity` out.")
        return fixed, fixed
    if final is None:
        raise UsageError("Give the sparsity to reach, such as `--sparsity 0.9`, or a pattern, such as `--n-m 2:4`.")
    for name, value in (("--sparsity", final), ("--initial-sparsity", options.initial_sparsity)):
        if value is not None and not 0.0 <= value < 1.0:
            raise UsageError(
                f"`{name}` should be in [0, 1), the fraction of weights that become zero; received {value:g}."
            )
    initial = min(0.5, final) if options.initial_sparsity is None else options.initial_sparsity
    if initial > final:
        raise UsageError(f"`--initial-sparsity {initial:g}` should not be above `--sparsity {final:g}`.")
    return initial, final


def _block(text):
    return _two_integers(text, "x", "two positive integers with an x between, such as 1x2")


def _n_m(text):
    n, m = _two_integers(text, ":", "two integers with a colon between, such as 2:4")
    if n >= m:
        raise argparse.ArgumentTypeError(f"N should be smaller than M, as in 2:4; received {text}")
    return n, m


def _two_integers(text, separator, expected):
    parts = text.lower().split(separator)
    if len(parts) != 2 or not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise argparse.ArgumentTypeError(f"should be {expected}; received {text!r}")
    return int(parts[0]), int(parts[1])
