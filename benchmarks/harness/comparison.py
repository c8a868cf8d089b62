"""Runs candidates in turn, round by round, and compares their times."""

import statistics

from alexnet.progress import progress

# A processor's clock and the load from other programs change within seconds. Two candidates' times in one round are
# from the same minute, so their ratio says more than either time.


def run_interleaved(candidates, command, rounds, seconds=1.0, verbose=None):
    """Let candidates carry out the same command in turn.

    Each warms up. In each round it then repeats the command as often as fits into `seconds`, at least once. Every
    second round goes through the candidates backwards.

    Args:
        candidates: `{name: Candidate}`.
        command: `do` and its arguments, without `count`.
        rounds: The number of rounds.
        seconds: The length of a turn.

    Returns:
        `(times, last)`: by name, the seconds of one command in each round; and by name, the last answer.
    """
    turns, last = {}, {}
    for name, candidate in candidates.items():
        candidate.request(**command, count=1)  # may compile
        once = candidate.request(**command, count=2)["seconds"] / 2
        turns[name] = max(1, round(seconds / once))
    times = {name: [] for name in candidates}
    order = [name for turn in range(rounds) for name in (list(candidates) if turn % 2 == 0 else [*candidates][::-1])]
    for name in progress(order, len(order), f"{command['do']}: {', '.join(candidates)}", verbose):
        last[name] = candidates[name].request(**command, count=turns[name])
        times[name].append(last[name]["seconds"] / turns[name])
    return times, last


def ratio(ours, theirs):
    """How many times as fast as `theirs` ours is: `median`, `min` and `max` over the rounds."""
    ratios = [their / our for our, their in zip(ours, theirs, strict=True)]
    return {"median": statistics.median(ratios), "min": min(ratios), "max": max(ratios)}


def fastest(times):
    """The name with the smallest median."""
    return min(times, key=lambda name: statistics.median(times[name]))


def ratios(times, ours="ours"):
    """`{name: ratio}` of ours to each other candidate."""
    return {name: ratio(times[ours], theirs) for name, theirs in times.items() if name != ours}


def compare_backends(times):
    """The speed of the slowest as a share of the fastest's: `median`, `min`, `max`, and the two names."""
    slowest = max(times, key=lambda name: statistics.median(times[name]))
    first = fastest(times)
    return {**ratio(times[slowest], times[first]), "slowest": slowest, "fastest": first}
