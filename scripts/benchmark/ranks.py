"""scripts/bench ranks: a rank for every core beside one rank with all of them as threads.

784-2048-2048-10, momentum, 512 samples a core, float32; both in turn, the same bits in the end. Ranks
share a step out evenly and wait for the slowest, threads of one rank take what is there to do: where
one core is slower than another, as on machines shared with others, ranks lose what no exchange could
get back. So between any two turns the loss of work that is shared out evenly is measured with nothing
to exchange (kernels_benchmark --even-split), and the ratio is shown beside that limit.
"""

import json
import statistics

from . import lockstep
from .comparison import progress
from .contender import cores, run
from .workloads import Workload

SAMPLES_A_CORE = 512
WANTED = 0.95
# Cores are alike where even work reaches this: a turn between two such says what the exchange costs.
CALM = 0.97


def measured(contender, expected):
    summary = contender.train(contender.steps)
    if expected not in (None, summary["parameters_sha256"]):
        raise RuntimeError(f"{contender.name}: other bits: {summary['parameters_sha256']}, not {expected}")
    return summary["samples_per_second"], summary["parameters_sha256"]


def ranks(options, kernels_program):
    """Measures and prints the turns; returns them for the JSON."""
    if cores() == 1:
        raise RuntimeError("one core: there are no ranks to compare with threads")
    workload = Workload((2048, 2048), SAMPLES_A_CORE * cores(), "momentum", 0.01, WANTED)
    threads, processes = (lockstep.Lockstep(options.lockstep, workload, options.data, options.seconds, *shape)
                          for shape in ((1, cores()), (cores(), 1)))
    progress(f"ranks: {threads.name}: trial")
    threads.prepare()
    processes.steps = threads.steps
    step_seconds = workload.batch / threads.measure().samples_per_second

    def even_split():
        progress("ranks: equal work on every core")
        return json.loads(run([kernels_program, "--even-split", str(cores()), f"{step_seconds:.4f}"]))["even_split"]

    progress("")
    print(f"{workload.name}, {threads.steps} steps a run\n"
          f"  {'threads':>10} {'ranks':>10} {'ratio':>7} {'even work':>10}   samples/s, in turn", flush=True)
    turns, digest, before = [], None, even_split()
    for number in range(options.rounds):
        found = {}
        for contender in (threads, processes) if number % 2 == 0 else (processes, threads):
            progress(f"ranks: turn {number + 1} of {options.rounds}: {contender.name}")
            found[contender], digest = measured(contender, digest)
        after = even_split()
        turn = dict(threads=found[threads], ranks=found[processes], ratio=found[processes] / found[threads],
                    even_split=(before + after) / 2, calm=min(before, after) >= CALM)
        turns.append(turn)
        before = after
        progress("")
        print(f"  {turn['threads']:10,.0f} {turn['ranks']:10,.0f} {turn['ratio']:7.3f} {turn['even_split']:10.3f}",
              flush=True)
    return summary_of(turns, digest)


def summary_of(turns, digest):
    calm = [turn["ratio"] for turn in turns if turn["calm"]]
    found = dict(turns=turns, parameters_sha256=digest, wanted=WANTED,
                 ratio=statistics.median(turn["ratio"] for turn in turns),
                 even_split=statistics.median(turn["even_split"] for turn in turns),
                 calm_turns=len(calm), calm_ratio=statistics.median(calm) if calm else None)
    print(f"  ranks : threads = {found['ratio']:.3f}, where work shared out evenly reaches {found['even_split']:.3f} "
          f"(medians of {len(turns)}); wanted {WANTED}")
    if calm:
        print(f"  while cores were alike (even work reached {CALM} before and after): "
              f"{found['calm_ratio']:.3f}, median of {len(calm)} turns")
    else:
        print(f"  cores were never alike (even work at {CALM} before and after a turn)")
    return found
