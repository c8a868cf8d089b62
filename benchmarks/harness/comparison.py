"""Candidates interleaved, round by round, and what their times say."""

import statistics

from alexnet.progress import progress

# A processor's clock and its neighbors change within seconds. What two candidates did in one round was done in the
# same minute, so that the ratio of the two is worth more than either time.


def run_interleaved(candidates, command, rounds, seconds=1.0, verbose=None):
    """Let candidates do the same in turn.

    Each warms up, and then does it in each round as often as fits into `seconds`, at least once. Every other
    round goes through them backwards.

    Args:
        candidates: By name.
        command: What they do, `do` and its arguments but for `count`.
        rounds: How many.
        seconds: A turn's length.

    Returns:
        By name, the seconds that it took once, a number for each round; and by name, its last answer.
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
    """How many times as fast as `theirs` we are: `median`, `min` and `max` over the rounds."""
    ratios = [their / our for our, their in zip(ours, theirs, strict=True)]
    return {"median": statistics.median(ratios), "min": min(ratios), "max": max(ratios)}


def fastest(times):
    """The name with the smallest median."""
    return min(times, key=lambda name: statistics.median(times[name]))


def ratios(times, ours="ours"):
    """`ratio` of each other candidate."""
    return {name: ratio(times[ours], theirs) for name, theirs in times.items() if name != ours}


def compare_backends(times):
    """The slowest candidate's speed as a share of the fastest one's: `median`, `min`, `max`, and the two names."""
    slowest = max(times, key=lambda name: statistics.median(times[name]))
    first = fastest(times)
    return {**ratio(times[slowest], times[first]), "slowest": slowest, "fastest": first}
