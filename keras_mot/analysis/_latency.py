"""Time of inference in the runtime."""

import statistics

WARM_UP_RUNS = 3


def median_latencies(runners, runs, advance=lambda: None):
    """Times prepared runners, interleaved, so that a slow moment of the machine hits all of them.

    Args:
        runners: A list of `LiteRTRunner`, each with its inputs set.
        runs: How often each is run.
        advance: Called after each round.

    Returns:
        A list of the median milliseconds per sample of each runner.
    """
    times = [[] for _ in runners]
    for runner in runners:
        for _ in range(WARM_UP_RUNS):
            runner.invoke()
    for _ in range(runs):
        for runner, values in zip(runners, times, strict=True):
            values.append(runner.timed_invoke())
        advance()
    return [
        statistics.median(values) * 1000 / (runner.batch_size or 1)
        for runner, values in zip(runners, times, strict=True)
    ]
