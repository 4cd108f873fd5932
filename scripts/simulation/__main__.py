"""What scripts/simulate runs, once the programs are built; see its --help."""

import argparse
import json
import os

from . import bound, picture, validation
from .cluster import GFLOPS, MEMORY, NETWORKS, Simulator

SAMPLES = 512
BATCH = 4096
TABLE = f"{'nodes':>6} {'network':>10} {'':>8} {'step ms':>8} {'efficiency':>10} {'limit':>7}"


def measure(simulator, network, kind, nodes, overlap, arguments, samples=SAMPLES, steps=5):
    """A row: efficiency is the time of a node alone, with its share of a batch, over the step's."""
    how = ["--steps", steps, *arguments]
    how += ["--batch", BATCH] if kind == "strong" else ["--samples", samples]
    if nodes > 8:
        how.append("--share-memory")
    if not overlap:
        how.append("--no-overlap")
    share = BATCH / nodes if kind == "strong" else samples
    seconds = simulator.run(network, nodes, *how)["step"]
    alone = bound.computing(share, GFLOPS)
    least = bound.shortest_step(network, nodes, share, GFLOPS, MEMORY, overlap)
    row = {"kind": kind, "network": network.name, "nodes": nodes, "overlap": overlap,
           "seconds": seconds, "efficiency": alone / seconds, "bound": alone / least,
           "speedup": nodes * alone / seconds}
    print(f"{nodes:>6} {network.name:>10} {'' if overlap else 'after':>8} {seconds * 1e3:>8.2f} "
          f"{row['efficiency']:>10.1%} {row['bound']:>7.1%}", flush=True)
    return row


def check(simulator, arguments):
    """What a test can hold to in seconds."""
    network = NETWORKS[1]
    for nodes in (2, 5, 8, 16, 32):
        if simulator.run(network, nodes, "--check", *arguments)["bits"] != "equal":
            raise SystemExit("scripts/simulate: other bits than the serial tree's")
    row = measure(simulator, network, "weak", 8, True, arguments, steps=3)
    if row["efficiency"] <= 0.95:
        raise SystemExit(f"scripts/simulate: 8 nodes at {network.name} reach {row['efficiency']:.1%}, not 95 %")


def all_rows(simulator, largest, arguments):
    powers = [2 ** k for k in range(1, 11) if 2 ** k <= largest]
    rows = []
    for kind, overlap, nodes in (
            ("weak", True, powers + [n for n in (3,) if n <= largest]),
            ("weak", False, [n for n in powers if n <= 64]),
            ("strong", True, [n for n in powers if n <= 256])):
        print(f"\n{kind} scaling, " + (f"{SAMPLES} samples a node" if kind == "weak" else f"{BATCH} samples in all") +
              ("" if overlap else ", without overlap") + f"\n{TABLE}")
        rows += [measure(simulator, network, kind, n, overlap, arguments) for network in NETWORKS for n in nodes]
    return rows


def main():
    parser = argparse.ArgumentParser(prog="scripts/simulate")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--largest", type=int, default=1024)
    parser.add_argument("--validate", action="store_true")
    parser.add_argument("--out", required=True)
    parser.add_argument("--program", required=True)
    parser.add_argument("--real-program")
    options, arguments = parser.parse_known_args()
    simulator = Simulator(options.program, options.out)
    if options.check:
        return check(simulator, arguments)
    if options.validate:
        rows = validation.validate(simulator, options.real_program)
        print(validation.table(rows))
        with open(os.path.join(options.out, "validation.json"), "w") as file:
            json.dump(rows, file, indent=1)
        return
    for network in NETWORKS:
        print(network.text())
    print(f"nodes: {GFLOPS:g} GFLOP/s, additions and updates at {MEMORY:g} GB/s; "
          f"{bound.parameter_bytes() / 1e6:.1f} MB of parameters")
    rows = all_rows(simulator, options.largest, arguments)
    report = {"networks": [vars(n) for n in NETWORKS], "gflops": GFLOPS, "memory": MEMORY, "rows": rows}
    with open(os.path.join(options.out, "simulate.json"), "w") as file:
        json.dump(report, file, indent=1)
    picture.draw(report, os.path.join(options.out, "simulate.png"))


main()
