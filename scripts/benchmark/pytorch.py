"""PyTorch on the processor as a contender, as fast as it can be made.

For each number of threads a trial chooses how updates are done (plain, foreach, fused), how samples are
gathered (a batch at a time, or some thousands at once), and which build of OpenBLAS multiplies.
"""

import glob
import json
import os
import sys

from .contender import Contender, Measurement, Unavailable, cores, environment, plural, run

HERE = os.path.dirname(os.path.abspath(__file__))


def blas_folders():
    """Where the builds of OpenBLAS are, [""] if there are none: the system's libblas.so.3 it is then."""
    return sorted(glob.glob("/usr/lib/*/openblas-*")) or [""]


def blas_name(folder):
    return os.path.basename(folder) or "system BLAS"


def trainer(script, task, blas):
    """Runs pytorch_trainer.py or pytorch_race.py in a process of its own."""
    output = run([sys.executable, os.path.join(HERE, script), json.dumps(task)],
                 env=environment(library_path=blas))
    return json.loads(output)


def installed():
    """The version of PyTorch; raises Unavailable where there is none."""
    try:
        return run([sys.executable, "-c", "import torch, h5py; print(torch.__version__)"],
                   env=environment()).strip()
    except RuntimeError:
        raise Unavailable(f"{sys.executable} has no torch or no h5py") from None


class PyTorch(Contender):
    family = "PyTorch"

    def __init__(self, version, workload, data, seconds, threads):
        self.task = dict(widths=workload.widths, activation=workload.activation, batch=workload.batch,
                         optimizer=workload.optimizer, learning_rate=workload.learning_rate,
                         bfloat16=workload.precision == "bfloat16", data=data, threads=threads)
        self.seconds = seconds
        autocast = ", bfloat16 autocast" if self.task["bfloat16"] else ""
        self.name = f"PyTorch {version}, {plural(threads, 'thread')}{autocast}"
        self.blas = ""

    def prepare(self):
        # A trial is short, but no shorter than some steps of a large network.
        trial_seconds = max(0.3, self.seconds / 6)
        best = None
        for blas in blas_folders():
            found = trainer("pytorch_trainer.py", {**self.task, "seconds": trial_seconds}, blas)
            if best is None or found["samples_per_second"] > best["samples_per_second"]:
                best, self.blas = found, blas
        if best is None or "update" not in best:
            raise Unavailable("no form of its optimizer runs here")
        self.task.update(update=best["update"], gather=best["gather"])
        self.settings = f"{best['update']} update, gathered {best['gather']}, {blas_name(self.blas)}"

    def measure(self):
        found = trainer("pytorch_trainer.py", {**self.task, "seconds": self.seconds}, self.blas)
        return Measurement(found["samples_per_second"], found["loss"], found["first_loss"])


def contenders(workload, data, seconds):
    version = installed()
    return [PyTorch(version, workload, data, seconds, threads) for threads in sorted({1, cores()})]
