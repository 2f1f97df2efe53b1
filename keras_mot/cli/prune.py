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


def add_parser(commands: argparse._SubParsersAction, common: argparse.ArgumentParser) -> None:
    """Adds the command to the parser."""
    parser = commands.add_parser(
        "prune",
        parents=[common],
        help="prune a saved model while fine-tuning it",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
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
    _options.check_inputs(options)
    _options.plain_outputs(options)


def run(options: argparse.Namespace) -> Result:
    """Runs the command."""
    return _work(options, prepare(options, _options.plain_outputs(options), _pruned(options)))


def _pruned(options):
    """The function that attaches masks to a model."""

    def change(model, data, steps):
        import keras_mot
        from keras_mot.sparsity.channels import layers_before_outputs

        skipped = [*options.skip, *(layers_before_outputs(model) if options.channels else ())]
        return keras_mot.sparsity.prune_low_magnitude(
            model,
            _schedule(_sparsities(options), steps, options.frequency),
            granularity=keras_mot.sparsity.Channel() if options.channels else None,
            block_size=options.block or (1, 1),
            sparsity_m_by_n=options.n_m,
            scope=keras_mot.sparsity.WholeModel() if options.scope == "model" else None,
            overrides=dict.fromkeys(skipped),
            include_depthwise=options.include_depthwise or None,
        )

    return change


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


def _schedule(sparsities, steps, frequency):
    from keras_mot.sparsity import PolynomialDecay

    return PolynomialDecay(*sparsities, begin_step=0, end_step=max(1, steps * 3 // 4), frequency=frequency)


def _work(options, plan):
    import keras_mot

    def finish(pruned):
        small = keras_mot.sparsity.strip_pruning(pruned)
        return keras_mot.sparsity.remove_pruned_channels(small) if options.channels else small

    trained = train_and_write(options, plan, "pruning", finish)
    return result_of(trained, keras_mot.sparsity.pruning_report(plan.changed).left_alone, "pruned")


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
