"""One row: every contender measured once in each round, in turn, and what comes out of it."""

import statistics
import sys

from . import lockstep, native, pytorch
from .contender import Unavailable
from .workloads import WANTED_OF_OTHERS

# Whoever learns brings the loss below this share of what it was.
LEARNS = 0.95


def progress(text):
    if sys.stderr.isatty():
        print(f"\r{text[:110]:110}\r", end="", file=sys.stderr, flush=True)


def contenders_of(workload, options, workshop):
    """(those that can take part, what is to be said of the others)."""
    ready, left_out = prepared(workload,
                               lockstep.contenders(options.lockstep, workload, options.data, options.seconds))
    if not ready:  # the peers alone say nothing
        return ready, left_out
    found = []
    try:
        found += pytorch.contenders(workload, options.data, options.seconds)
    except Unavailable as reason:
        left_out.append(f"PyTorch: {reason}")
    found += native.contenders(workshop, workload, options.seconds)
    peers_ready, peers_left_out = prepared(workload, found)
    return ready + peers_ready, left_out + peers_left_out


def prepared(workload, contenders):
    ready, left_out = [], []
    for contender in contenders:
        progress(f"{workload.name}: {contender.name}: trial")
        try:
            contender.prepare()
            ready.append(contender)
        except (Unavailable, RuntimeError) as reason:
            left_out.append(f"{contender.name}: {reason}")
    return ready, left_out


def measure_row(workload, options, workshop, limits):
    """The row as the report, the picture and the JSON use it."""
    contenders, left_out = contenders_of(workload, options, workshop)
    measured = {contender: [] for contender in contenders}
    for number in range(options.rounds):
        limits.measure()
        for contender in contenders:
            progress(f"{workload.name}: round {number + 1} of {options.rounds}: {contender.name}")
            if measured[contender] is None:
                continue
            try:
                found = contender.measure()
            except (Unavailable, RuntimeError) as error:
                left_out.append(f"{contender.name}: {error}")
                measured[contender] = None
                continue
            if found.loss is not None and not found.loss < LEARNS * found.first_loss:
                left_out.append(f"{contender.name}: loss {found.loss:.3f} after {found.first_loss:.3f}: "
                                "it does not learn, its speed does not count")
                measured[contender] = None
                continue
            measured[contender].append(found)
    progress("")

    peak, peak_name = limits.gflops(workload.precision)
    results = []
    for contender, runs in measured.items():
        if not runs:
            continue
        speeds = [run.samples_per_second for run in runs]
        median = statistics.median(speeds)
        gflops = median * workload.flop_per_sample / 1e9
        results.append(dict(contender=contender.name, family=contender.family, settings=contender.settings,
                            samples_per_second=speeds, median=median, gflops=gflops,
                            share_of_peak=gflops / peak, loss=runs[-1].loss, first_loss=runs[-1].first_loss))
    row = dict(name=workload.name, widths=workload.widths, batch=workload.batch, precision=workload.precision,
               optimizer=workload.optimizer, activation=workload.activation, peak=peak_name,
               peak_gflops=peak, results=results, left_out=left_out, ratios=[])
    for family, our_family in (("PyTorch", "lockstep"), ("libxsmm", "lockstep"),
                               ("libxsmm", "lockstep with plain SGD"), ("FANN", "lockstep")):
        ours, peer = best_of(results, our_family), best_of(results, family)
        if ours and peer:
            wanted = workload.wanted if family == "PyTorch" else WANTED_OF_OTHERS
            ratio = ours["median"] / peer["median"]
            row["ratios"].append({"of": our_family, "to": family, "ratio": ratio, "wanted": wanted,
                                  "reached": ratio >= wanted})
    return row


def best_of(results, family):
    return max((r for r in results if r["family"] == family), key=lambda r: r["median"], default=None)
