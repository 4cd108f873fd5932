"""What runs here, and the limits of it as tests/kernels_benchmark.cpp measures them."""

import json
import os
import platform

from .contender import cores, run


def processor():
    with open("/proc/cpuinfo") as file:
        for line in file:
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.machine()


def system():
    with open("/etc/os-release") as file:
        for line in file:
            if line.startswith("PRETTY_NAME="):
                return line.split("=", 1)[1].strip().strip('"')
    return platform.platform()


class Limits:
    """The highest figures seen in this run: clocks and neighbours change by the minute, limits do not."""

    def __init__(self, program):
        self.program = program
        self.found = {}

    def measure(self):
        new = json.loads(run([self.program, "--limits", str(cores())]))
        for part in ("one", "all"):
            old = self.found.setdefault(part, {})
            for key, value in new[part].items():
                old[key] = max(value, old.get(key) or 0) if value is not None else old.get(key)
        self.found["kernels"] = new["kernels"]

    def gflops(self, precision):
        """(the peak of all cores, its name) for shares: of bfloat16 where the processor has it."""
        bfloat16 = self.found["all"].get("bfloat16_gflops")
        if precision == "bfloat16" and bfloat16:
            return bfloat16, "bfloat16 peak"
        return self.found["all"]["fma_gflops"], "float32 peak"

    def text(self):
        lines = []
        for part, who in (("one", "one core"), ("all", f"{cores()} cores at once")):
            limits = self.found[part]
            bfloat16 = limits.get("bfloat16_gflops")
            lines.append(f"  {who:16} {limits['fma_gflops']:8,.0f} GFLOP/s float32, "
                         + (f"{bfloat16:,.0f} GFLOP/s bfloat16, " if bfloat16 else "")
                         + f"{limits['memory_gbs']:.0f} GB/s memory")
        if not self.found["one"].get("bfloat16_gflops"):
            lines.append("  no bfloat16 instructions here: its rows show the share of the float32 peak")
        return "\n".join(lines)


def describe(limits):
    return dict(processor=processor(), cores=cores(), system=system(), limits=limits.found)
