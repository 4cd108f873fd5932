"""The comparison that scripts/bench runs; see its --help."""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile

from . import machine, native, picture, report
from .comparison import measure_row, progress
from .contender import Unavailable, cores
from .race import race
from .ranks import ranks
from .workloads import WORKLOADS

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
KERNELS = "kernels"

HELP = """\
Measures, in one run and in turn, what this machine can do and what is made of it:

  limits    multiply-adds a second and memory bandwidth, of one core and of all at once
  kernels   each kernel on one core, with its share of these limits; answers are checked
  rows      whole training steps on Fashion-MNIST: lockstep, PyTorch, libxsmm and FANN

In a row every round measures every contender once, one after the other, so that whatever else the
machine does falls on all of them; figures are medians over the rounds. Before, short trials find the
fastest settings of each peer: PyTorch's threads, optimizer form, gathering and build of OpenBLAS,
libxsmm's threads and block sizes. A contender whose loss does not fall does not count. A contender that
cannot take part is named with the reason. Nothing of OMP_*, OPENBLAS_* or MKL_* reaches a peer.

  scripts/bench                               all of it; takes an hour
  scripts/bench --quick                       the same with few, short rounds
  scripts/bench --list                        the names of the rows
  scripts/bench --only '512-512 batch 128'    rows whose name matches a regular expression, or 'kernels'
  scripts/bench race                          seconds to 98 % of MNIST from a cold start, beside PyTorch
  scripts/bench ranks --rounds 20             a rank for every core beside one rank with all of them

Writes bench/bench.json, bench/kernels.json and bench/bench.png (race: bench/race.json, ranks:
bench/ranks.json).
Let nothing else run meanwhile. Figures of one run compare, those of different runs do not."""


def parse_arguments():
    parser = argparse.ArgumentParser(prog="scripts/bench", description=HELP,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=["all", "race", "ranks"], default="all",
                        help="default: all but the race and the ranks")
    parser.add_argument("--only", metavar="PATTERN", type=re.compile, help="measure these rows alone")
    parser.add_argument("--quick", action="store_true", help="2 rounds of 0.8 s; race: 2 seeds")
    parser.add_argument("--rounds", type=int, help="default: 5")
    parser.add_argument("--seconds", type=float, help="of each measurement (default: 3)")
    parser.add_argument("--seeds", type=int, help="of the race (default: 10)")
    parser.add_argument("--list", action="store_true", help="print the names of the rows and end")
    parser.add_argument("--out", metavar="DIR", default=os.path.join(ROOT, "bench"), help="default: bench/")
    parser.add_argument("--build", metavar="DIR", default=os.path.join(ROOT, "build"), help=argparse.SUPPRESS)
    parser.add_argument("--lockstep", metavar="PROGRAM", help="another build of the program")
    options = parser.parse_args()
    options.rounds = options.rounds or (2 if options.quick else 5)
    options.seconds = options.seconds or (0.8 if options.quick else 3.0)
    options.seeds = options.seeds or (2 if options.quick else 10)
    options.lockstep = options.lockstep or os.path.join(options.build, "lockstep")
    options.data = os.path.join(ROOT, "data", "fashion-train.h5")
    options.train, options.test = (os.path.join(ROOT, "data", f"mnist-{part}.h5") for part in ("train", "test"))
    return options


def measure_kernels(options, program):
    progress("kernels")
    command = [program, f"--benchmark_out={os.path.join(options.out, 'kernels.json')}",
               "--benchmark_out_format=json"]
    if options.quick:
        command.append("--benchmark_min_time=0.05")
    subprocess.run(command, check=True)
    print(flush=True)


def write_json(content, path):
    with open(path + ".new", "w") as file:
        json.dump(content, file, indent=2)
        file.write("\n")
    os.replace(path + ".new", path)
    print(f"Written to {path}")


def compare(options, limits, kernels_program):
    rows = [w for w in WORKLOADS if not options.only or options.only.search(w.name)]
    with_kernels = not options.only or options.only.search(KERNELS)
    if not rows and not with_kernels:
        sys.exit("scripts/bench: no row has such a name; --list shows them")
    if with_kernels:
        measure_kernels(options, kernels_program)
    if not rows:
        return
    done = []
    with tempfile.TemporaryDirectory() as directory:
        workshop = native.Workshop(directory, options.data)
        for workload in rows:
            done.append(measure_row(workload, options, workshop, limits))
            report.print_row(done[-1], options.rounds, options.seconds)
    report.print_summary(done)
    print(f"\nThe limits, the highest of the run:\n{limits.text()}")
    everything = dict(machine=machine.describe(limits), rounds=options.rounds, seconds=options.seconds, rows=done)
    write_json(everything, os.path.join(options.out, "bench.json"))
    path = os.path.join(options.out, "bench.png")
    try:
        if any(row["results"] for row in done):
            picture.draw(everything, path)
            print(f"Drawn in {path}")
    except Unavailable as reason:
        print(f"No picture: {reason}")


def main():
    options = parse_arguments()
    if options.list:
        print("\n".join([KERNELS, *(w.name for w in WORKLOADS)]))
        return
    os.makedirs(options.out, exist_ok=True)
    kernels_program = os.path.join(options.build, "tests", "kernels_benchmark")
    limits = machine.Limits(kernels_program)
    progress("limits")
    limits.measure()
    progress("")
    print(f"{machine.processor()}, {cores()} cores, {machine.system()}, {limits.found['kernels']} kernels\n"
          f"{limits.text()}\n", flush=True)
    if options.what == "race":
        write_json(dict(machine=machine.describe(limits), race=race(options, options.seeds)),
                   os.path.join(options.out, "race.json"))
    elif options.what == "ranks":
        write_json(dict(machine=machine.describe(limits), ranks=ranks(options)),
                   os.path.join(options.out, "ranks.json"))
    else:
        compare(options, limits, kernels_program)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
    except (RuntimeError, OSError, subprocess.CalledProcessError) as error:
        sys.exit(f"scripts/bench: {error}")
