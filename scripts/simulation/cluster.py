"""The clusters that are simulated: one node a rank, each with a link to a switch of full bisection."""

import os
import subprocess
import json

# What a rank computes with: products at this rate and memory at this bandwidth.
GFLOPS = 230.0
MEMORY = 51.0


class Network:
    """bits: Gbit/s of a link, each way; payload: what frames leave of it; latency: seconds from node to
    node; message: seconds of the processor for each message, at the sender and at the receiver."""

    def __init__(self, name, bits, payload, latency, message):
        self.name, self.bits, self.payload = name, bits, payload
        self.latency, self.message = latency, message

    @property
    def bandwidth(self):
        return self.bits * 1e9 / 8 * self.payload

    def text(self):
        return (f"{self.name}: {self.bandwidth / 1e9:.4g} GB/s of payload each way ({self.payload:.0%} of the line), "
                f"{self.latency * 1e6:g} us from node to node, {self.message * 1e6:g} us a message at either end")


NETWORKS = [
    Network("10 Gbit/s", 10, 0.94, 20e-6, 2e-6),     # TCP in frames of 1,500 bytes
    Network("100 Gbit/s", 100, 0.97, 2e-6, 0.5e-6),  # remote direct memory access in frames of 4 KiB
    Network("200 Gbit/s", 200, 0.97, 2e-6, 0.5e-6),
]


class Simulator:
    """Runs the program on `nodes` nodes of a network; answers are its JSON."""

    def __init__(self, program, folder):
        self.program, self.folder = program, folder
        os.makedirs(folder, exist_ok=True)

    def run(self, network, nodes, *arguments, gflops=GFLOPS, memory=MEMORY):
        platform = os.path.join(self.folder, f"cluster-{network.bits:g}.xml")
        hosts = os.path.join(self.folder, "hosts")
        with open(platform, "w") as file:
            # Node to node is a link up and a link down, each with half of the latency.
            file.write(f"""<?xml version='1.0'?>
<!DOCTYPE platform SYSTEM "https://simgrid.org/simgrid.dtd">
<platform version="4.1">
  <cluster id="cluster" prefix="node-" suffix="" radical="0-{nodes - 1}" speed="1Gf"
           bw="{network.bandwidth:.0f}Bps" lat="{network.latency / 2 * 1e9:.0f}ns" sharing_policy="SPLITDUPLEX"/>
</platform>
""")
        with open(hosts, "w") as file:
            file.writelines(f"node-{i}\n" for i in range(nodes))
        overhead = f"0:{network.message:g}:0"
        command = ["smpirun", "-np", str(nodes), "-platform", platform, "-hostfile", hosts, "-no-privatize",
                   "--log=root.thres:warning",
                   # Time is what the platform and the program say, and nothing else.
                   "--cfg=smpi/simulate-computation:no", "--cfg=smpi/test:0", "--cfg=smpi/iprobe:0",
                   "--cfg=smpi/wtime:0", "--cfg=smpi/bw-factor:0:1", "--cfg=smpi/lat-factor:0:1",
                   "--cfg=network/crosstraffic:0",
                   f"--cfg=smpi/os:{overhead}", f"--cfg=smpi/ois:{overhead}", f"--cfg=smpi/or:{overhead}",
                   # Ranks start with few collective calls, and steps have none. Messages that SimGrid lets go
                   # before the receiver has come make it slow; the exchange's receivers come at once.
                   "--cfg=smpi/coll-selector:ompi", "--cfg=smpi/bcast:binomial_tree",
                   "--cfg=smpi/send-is-detached-thresh:0",
                   self.program, "--gflops", f"{gflops:g}", "--memory", f"{memory:g}", *map(str, arguments)]
        answer = subprocess.run(command, text=True, capture_output=True)
        if answer.returncode != 0:
            raise SystemExit(f"scripts/simulate: {' '.join(command)} failed:\n{answer.stdout}{answer.stderr}")
        return json.loads(answer.stdout.strip().splitlines()[-1])
