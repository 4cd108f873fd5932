"""One exchange by messages between real ranks of this machine, beside the simulation of it.

The simulated cluster has what two or four ranks that swap messages all at once reach here: the time of
an empty message, bytes/s, and bytes/s of additions.
"""

import json
import os
import subprocess

from .cluster import Network

SIZES = (256, 1024, 4096, 16384, 65536)  # KiB


def real(program, ranks, *arguments):
    command = ["mpirun", "--oversubscribe", "--bind-to", "none", "-np", str(ranks), program, *map(str, arguments)]
    answer = subprocess.run(command, text=True, capture_output=True)
    if answer.returncode != 0:
        raise SystemExit(f"scripts/simulate: {' '.join(command)} failed:\n{answer.stdout}{answer.stderr}")
    return json.loads(answer.stdout.strip().splitlines()[-1])


def validate(simulator, program):
    rows = []
    for ranks in (2, 4):
        link = real(program, ranks, "--link", "--steps", 101)
        here = Network(f"this machine, {ranks} ranks", link["bandwidth"] * 8e-9, 1.0, link["latency"], 0)
        for size in SIZES:
            measured = real(program, ranks, "--exchange", size, "--steps", 101, "--warm", 3)["exchange"]
            simulated = simulator.run(here, ranks, "--exchange", size, "--steps", 3,
                                      memory=link["additions"] * 1e-9)["exchange"]
            rows.append({"ranks": ranks, "cores": os.cpu_count(), "kib": size, "link": link, "measured": measured,
                         "simulated": simulated, "error": simulated / measured - 1})
    return rows


def table(rows):
    lines = [f"{'ranks':>5} {'KiB':>7} {'measured us':>12} {'simulated us':>13} {'error':>8}"]
    for r in rows:
        lines.append(f"{r['ranks']:>5} {r['kib']:>7} {r['measured'] * 1e6:>12.0f} {r['simulated'] * 1e6:>13.0f} "
                     f"{r['error']:>+8.0%}")
    return "\n".join(lines)
