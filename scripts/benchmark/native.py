"""The peers in C: compiled here, fed with the dataset as raw bytes, one process for each measurement."""

import json
import os
import shutil
import subprocess

from .contender import Contender, Measurement, Unavailable, cores, environment, plural, run

SOURCES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "peers")
COMPILED = {
    "fann_trainer": ["-lfloatfann", "-lm"],
    "libxsmm_trainer": ["-fopenmp", "-lxsmm", "-lxsmmnoblas", "-ldl", "-lpthread", "-lm"],
}
# Block sizes of the batch, the inputs and the outputs. 784 is divided by 16, 28, 49, 56, 98, 112.
BLOCKS = ["32,16,32", "32,28,64", "64,56,64", "16,16,64", "32,112,32", "64,16,128"]
SMALL_BLOCKS = ["1,16,16", "10,16,16", "1,784,16", "10,112,16", "1,28,64", "1,112,32"]


class Workshop:
    """Where the peers are compiled and their data lies; made once per run, in `directory`."""

    def __init__(self, directory, data):
        self.directory, self.data = directory, data
        self.programs, self.raw = {}, None

    def program(self, name):
        if name not in self.programs:
            self.programs[name] = self.compile(name)
        if isinstance(self.programs[name], Unavailable):
            raise self.programs[name]
        return self.programs[name]

    def compile(self, name):
        compiler = shutil.which(os.environ.get("CC", "cc"))
        if not compiler:
            return Unavailable("no C compiler")
        output = os.path.join(self.directory, name)
        command = [compiler, "-O3", "-march=native", "-o", output, os.path.join(SOURCES, name + ".c"),
                   *COMPILED[name]]
        result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if result.returncode == 0:
            return output
        reasons = [line for line in result.stdout.splitlines() if "error" in line or "cannot find" in line]
        return Unavailable("does not compile: " + (reasons or ["no message"])[0].strip())

    def files(self):
        """The paths of the images and the labels, one byte a value."""
        if self.raw is None:
            import h5py

            self.raw = [os.path.join(self.directory, name) for name in ("images", "labels")]
            with h5py.File(self.data) as file:
                file["x"][:].astype("uint8").tofile(self.raw[0])
                file["y"][:].astype("uint8").tofile(self.raw[1])
        return self.raw


class Native(Contender):
    def __init__(self, workshop, workload, seconds):
        self.workshop, self.workload, self.seconds = workshop, workload, seconds

    def run(self, name, threads, *arguments):
        widths = ",".join(map(str, self.workload.widths))
        try:
            output = run([self.workshop.program(name), *self.workshop.files(), widths,
                          self.workload.activation, *map(str, arguments)],
                         env=environment(threads), timeout=120)
        except subprocess.TimeoutExpired:
            raise RuntimeError(f"{name} did not end within 120 s") from None
        found = json.loads(output)
        return Measurement(found["samples_per_second"], found["loss"], found["first_loss"])


class Fann(Native):
    family = "FANN"
    name = "FANN, 1 thread"
    settings = "sigmoid outputs, squared error"
    # Its loss is another, and so is the size of a step that suits it.
    LEARNING_RATE = {"sigmoid": 0.5, "relu": 0.05}

    def prepare(self):
        self.workshop.program("fann_trainer")
        if self.workload.activation == "relu":
            self.settings += ", piecewise linear for relu"

    def measure(self):
        rate = self.LEARNING_RATE[self.workload.activation]
        return self.run("fann_trainer", 1, rate, self.seconds)


class Libxsmm(Native):
    family = "libxsmm"

    def __init__(self, workshop, workload, seconds, threads):
        super().__init__(workshop, workload, seconds)
        self.threads = threads
        self.name = f"libxsmm, {plural(threads, 'thread')}"
        self.blocks = None

    def prepare(self):
        self.workshop.program("libxsmm_trainer")
        best, reason = 0.0, ""
        for blocks in SMALL_BLOCKS if self.workload.batch < 32 else BLOCKS:
            try:
                speed = self.train(blocks, max(0.2, self.seconds / 8)).samples_per_second
            except RuntimeError as error:
                reason = str(error)
                continue
            if speed > best:
                best, self.blocks = speed, blocks
        if not self.blocks:
            raise Unavailable(f"no block size runs: {reason}")
        self.settings = f"sgd, its only rule, bn,bc,bk = {self.blocks}"

    def measure(self):
        return self.train(self.blocks, self.seconds)

    def train(self, blocks, seconds):
        rate = self.workload.with_plain_sgd().learning_rate
        return self.run("libxsmm_trainer", self.threads, self.workload.batch, rate, blocks, self.threads, seconds)


def contenders(workshop, workload, seconds):
    if workload.precision != "float32":
        return []
    found = [Libxsmm(workshop, workload, seconds, threads) for threads in sorted({1, cores()})]
    if workload.batch == 1:
        found.append(Fann(workshop, workload, seconds))
    return found
