"""What `recipes.search` finds from a budget alone, beside recipes that were made by hand.

KERAS_BACKEND=tensorflow python benchmarks/search.py mnist
KERAS_BACKEND=tensorflow python benchmarks/search.py resnet8 ds_cnn_l --minutes 20 --folder /tmp/searches

Trials are compared on a part of the training data that nothing is trained on; the test set comes last. Keyword clips
are split by speaker, shifted in time, and the float model is tuned on them first; `--part` says which third of the
speakers tests. A search that was stopped goes on in the folder.
"""

import dataclasses
import pathlib
import tempfile
import time

import keras
import numpy as np
from _common import Table, environment, loaders, write_results
from _common import parser as common_parser
from _training import Augmented, Recipe, speaker_folds
from _training import fine_tune as fine_tuned
from quantization_accuracy import TASKS

from keras_mot.analysis import measure
from keras_mot.recipes import Budget, FineTune, search


@dataclasses.dataclass(frozen=True)
class Asked:
    """A budget, what the best file must reach on the test set, and how stages train.

    Args:
        budget: of the search.
        drop: the asked largest loss of accuracy on the test set.
        fine_tune: as of `search`.
    """

    budget: Budget
    drop: float
    fine_tune: FineTune


ASKED = {
    "mnist": Asked(Budget(zipped=60_000), 0.0013, FineTune(4, 1e-3, schedule="cosine")),
    "resnet8": Asked(Budget(zipped=40_000), 0.010, FineTune(12, 1e-3, schedule="cosine")),
    "ds_cnn_l": Asked(Budget(zipped=120_000), 0.007, FineTune(20, 1e-3, schedule="cosine", batch_size=32)),
}
TUNING = Recipe(epochs=10, learning_rate=1e-3, batch_size=32, decay_shares=(0.6, 0.85), temperature=2.0)
_VALIDATION = 0.1


def main():
    parser = common_parser(__doc__.splitlines()[0])
    parser.add_argument("tasks", nargs="*", default=["mnist"], help=f"of {', '.join(ASKED)}")
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--minutes", type=float, help="of each search; all trials by default")
    parser.add_argument("--families", help="some of them, with commas between; all by default")
    parser.add_argument("--folder", type=pathlib.Path, help="of the searches, to go on with them")
    parser.add_argument("--executor", default="local", choices=("local", "processes", "ray"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--part", type=int, default=0, choices=range(3), help="third of the speakers that tests")
    arguments = parser.parse_args()
    for name in arguments.tasks:
        if name not in ASKED:
            parser.error(f"there is no task {name!r}; there are: {', '.join(ASKED)}")
        _run(name, arguments)


def _run(name, arguments):
    asked, task = ASKED[name], TASKS[name]()
    title = f"{name}_part_{arguments.part}" if arguments.part else name
    fine_tune, trials = asked.fine_tune, arguments.trials
    if task.prepared is None:
        if arguments.part:
            raise SystemExit(f"--part is for clips of speakers; the test set of {name!r} is one part")
        (train, validation), test = _parts(task, arguments), task.test
    else:
        train, validation, test = by_speaker(task, arguments.part)
    if arguments.quick:
        train, validation = [(x[:512], y[:512]) for x, y in (train, validation)]
        fine_tune, trials = dataclasses.replace(fine_tune, epochs=1), 3
    model, before = task.model, ""
    if task.prepared is not None:
        model = tuned_on(task, train, arguments)
        given = np.mean(task.model.predict(test[0], verbose=0).argmax(-1) == test[1])
        before = f", tuned first (as given: {given:.2%})"
        recipe = Recipe(fine_tune.epochs, fine_tune.learning_rate, fine_tune.batch_size)
        train = Augmented(*train, arguments.seed, recipe, **task.augmentation)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=task.from_logits)
    settings = {} if arguments.executor != "local" else {"loss": loss}
    folder = arguments.folder or pathlib.Path(tempfile.mkdtemp(prefix="search_"))
    started = time.perf_counter()
    result = search(
        model,
        train,
        validation,
        budget=asked.budget,
        output_dir=folder / title,
        trials=trials,
        time_limit=None if arguments.minutes is None else 60 * arguments.minutes,
        families=arguments.families.split(",") if arguments.families else None,
        fine_tune=fine_tune,
        executor=arguments.executor,
        seed=arguments.seed,
        latency_runs=0,
        **settings,
    )
    seconds = time.perf_counter() - started
    print(result)
    files = {trial.number: next(trial.folder.glob("*.tflite"), None) for trial in result.front}
    on_test = {
        number: measure({"file": sorted(result.trials[number].folder.glob("*.tflite"))[-1]}, data=test)["file"].metric
        for number, file in files.items()
        if file is not None
    }
    float_accuracy = measure({"file": result.stages[0].artifact}, data=test)["file"].metric
    table = Table(
        f"{title}: {asked.budget}; asked: at most {asked.drop:.2%} below float on the test set",
        ("trial", "recipe", "epochs", "bytes", "zipped", "validation", "test", "below float"),
        notes=(
            f"Float{before}: {float_accuracy:.2%} on the test set. {len(result.trials)} trials, {result.seconds:.0f} s "
            f"in all, {seconds:.0f} s in this call.",
        ),
    )
    for trial in result.front:
        if trial.number not in on_test:
            continue
        accuracy = on_test[trial.number]
        table.add(
            f"{trial.number}{' (best)' if trial == result.best_trial else ''}",
            trial.family,
            trial.epochs,
            f"{trial.bytes:,}",
            f"{trial.zipped:,}",
            f"{trial.metric:.2%}",
            f"{accuracy:.2%}",
            f"{100 * (float_accuracy - accuracy):.2f}",
        )
    values = {
        "environment": environment(),
        "budget": dataclasses.asdict(asked.budget),
        "asked_drop": asked.drop,
        "fine_tune": dataclasses.asdict(fine_tune),
        "float_accuracy": float_accuracy,
        "test_accuracy": on_test,
        "met": result.met,
        "seconds_of_this_call": seconds,
        "search": result.to_dict(),
    }
    write_results(arguments, f"search_{title}", values, [table])


def _parts(task, arguments):
    """The training data, and a part of it to compare trials on."""
    x, y = task.train
    order = np.random.default_rng(arguments.seed).permutation(len(x))
    held = int(_VALIDATION * len(x))
    return tuple((x[part], y[part]) for part in (np.sort(order[held:]), np.sort(order[:held])))


def by_speaker(task, part):
    """Training, validation and test clips, no speaker in two of them: a half, a sixth and a third of the test set.

    The test clips of parts 0, 1 and 2 are all of them. The few keyword clips that come for training join the first.
    """
    (x, y), speakers = task.test, loaders().keyword_spotting()["speaker"]
    parts = (speaker_folds(speakers, x, 6) + 2 * part) % 6
    train, validation, test = ((x[chosen], y[chosen]) for chosen in (parts > 2, parts == 2, parts < 2))
    return tuple(np.concatenate(pair) for pair in zip(train, task.train, strict=True)), validation, test


def tuned_on(task, train, arguments):
    """The float model, trained on these clips as users would before anything else.

    So what a search gains by training is not set against a float model that had none. Its labels are the given model's
    probabilities.
    """
    recipe = dataclasses.replace(TUNING, epochs=1) if arguments.quick else TUNING
    data = Augmented(*train, arguments.seed, recipe, teacher=task.model, logits=task.from_logits, **task.augmentation)
    return fine_tuned(task.model, data, recipe, arguments.seed, from_logits=task.from_logits)[0]


if __name__ == "__main__":
    main()
