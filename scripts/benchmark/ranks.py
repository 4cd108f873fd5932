"""scripts/bench ranks: a rank for every core beside one rank with all of them as threads.

784-2048-2048-10, momentum, 512 samples a core, float32; both in turn, the same bits in the end. Ranks
share a step out evenly and wait for the slowest, threads of one rank take what is there to do: where
one core is slower than another, as on machines shared with others, ranks lose what no exchange could
get back. So the share of their time in which ranks waited for others is shown beside the ratio, as
the same run measured it, and what the ratio would be without any waiting: no less than what an
exchange as it is could reach on cores that are alike, since it makes ranks wait a little itself.

In its first steps a run comes by its memory, page by page, ranks by more and smaller pages than
threads. A training pays for that once, whatever its length, so a run of the first steps alone is taken
off one that goes on from there, and how long these took is shown as well.
"""

import statistics

from . import lockstep
from .comparison import progress
from .contender import cores
from .workloads import Workload

SAMPLES_A_CORE = 512
WANTED = 0.95


FIRST_STEPS = 5


def measured(contender, expected):
    """What comes after the first steps, and these."""
    first, whole = contender.train(FIRST_STEPS), contender.train(FIRST_STEPS + contender.steps)
    if expected not in (None, whole["parameters_sha256"]):
        raise RuntimeError(f"{contender.name}: other bits: {whole['parameters_sha256']}, not {expected}")
    # Fresh runs, so both are of all of them.
    seconds, waited = (whole[key] - first[key] for key in ("seconds", "wait_seconds"))
    if seconds <= 0:
        raise RuntimeError(f"{contender.name}: {contender.steps} steps are too few to tell anything: more --seconds")
    return dict(samples_per_second=contender.steps * contender.workload.batch / seconds,
                waited=max(0.0, waited / seconds), first_seconds=first["seconds"],
                parameters_sha256=whole["parameters_sha256"])


def ranks(options):
    """Measures and prints the turns; returns them for the JSON."""
    if cores() == 1:
        raise RuntimeError("one core: there are no ranks to compare with threads")
    workload = Workload((2048, 2048), SAMPLES_A_CORE * cores(), "momentum", 0.01, WANTED)
    threads, processes = (lockstep.Lockstep(options.lockstep, workload, options.data, options.seconds, *shape)
                          for shape in ((1, cores()), (cores(), 1)))
    progress(f"ranks: {threads.name}: trial")
    threads.prepare()
    processes.steps = threads.steps
    progress("")
    print(f"{workload.name}, samples/s of {threads.steps} steps after the first {FIRST_STEPS}, in turn\n"
          f"  {'threads':>10} {'ranks':>10} {'ratio':>7} {'waited':>7} {'at work':>8}   the first steps", flush=True)
    turns, digest = [], None
    for number in range(options.rounds):
        found = {}
        for contender in (threads, processes) if number % 2 == 0 else (processes, threads):
            progress(f"ranks: turn {number + 1} of {options.rounds}: {contender.name}")
            found[contender] = measured(contender, digest)
            digest = found[contender]["parameters_sha256"]
        turns.append(turn_of(found[threads], found[processes]))
        progress("")
        print("  {threads:10,.0f} {ranks:10,.0f} {ratio:7.3f} {waited:7.1%} {at_work:8.3f}   {threads_first:.2f} s and "
              "{ranks_first:.2f} s".format(**turns[-1]), flush=True)
    return summary_of(turns, digest)


def turn_of(threads, ranks):
    ratio = ranks["samples_per_second"] / threads["samples_per_second"]
    return dict(threads=threads["samples_per_second"], ranks=ranks["samples_per_second"], ratio=ratio,
                waited=ranks["waited"], at_work=ratio / (1 - ranks["waited"]),
                threads_first=threads["first_seconds"], ranks_first=ranks["first_seconds"])


def summary_of(turns, digest):
    medians = {key: statistics.median(turn[key] for turn in turns)
               for key in ("ratio", "waited", "at_work", "threads_first", "ranks_first")}
    print("  ranks : threads = {ratio:.3f} (wanted {wanted}); ranks waited {waited:.1%} of the time, without any "
          "waiting {at_work:.3f}; the first {first_steps} steps took threads {threads_first:.2f} s, ranks "
          "{ranks_first:.2f} s (medians of {turns})".format(first_steps=FIRST_STEPS, **medians, wanted=WANTED, turns=len(turns)))
    return dict(turns=turns, parameters_sha256=digest, wanted=WANTED, **medians)
