"""lockstep as a contender: `lockstep train`, with ranks under mpirun; its summary says its speed."""

import json
import math
import os
import subprocess
import tempfile

from .contender import Contender, Measurement, Unavailable, cores, plural


def leaves():
    """At least as many as ranks; the default unless this machine has more cores."""
    return max(8, 1 << (cores() - 1).bit_length())


def configuration(workload, data, **training):
    training = {"leaves": leaves()} | training
    layers = [f'{{ dense = {n}, activation = "{workload.activation}" }}' for n in workload.hidden]
    layers.append(f"{{ dense = {workload.widths[-1]} }}")
    lines = ["[data]", f'train = "{data}"', "[model]", f"layers = [{', '.join(layers)}]", "[optimizer]",
             f'name = "{workload.optimizer}"', f"learning_rate = {workload.learning_rate}",
             "[training]", f"batch_size = {workload.batch}"]
    lines += [f"{key} = {json.dumps(value)}" for key, value in training.items()]
    return "\n".join(lines + ["[checkpoint]", "every_epochs = 0", ""])


def command(program, ranks, *arguments):
    mpirun = ["mpirun", "-np", str(ranks), "--bind-to", "none"] if ranks > 1 else []
    return [*mpirun, program, *arguments]


def complaint(output):
    """The line of the program's error; mpirun adds lines of its own."""
    lines = output.strip().splitlines() or ["it said nothing"]
    return next((line for line in lines if line.startswith("lockstep: ")), lines[-1])


class Lockstep(Contender):
    family = "lockstep"

    def __init__(self, program, workload, data, seconds, ranks, threads, **training):
        self.program, self.workload, self.data, self.seconds = program, workload, data, seconds
        self.ranks, self.threads, self.training = ranks, threads, training
        self.name = f"lockstep, {plural(ranks, 'rank')} x {plural(threads, 'thread')}"
        self.name += "".join(f", {key} = {value}" for key, value in training.items())
        self.steps = None

    def prepare(self):
        """How many steps take the wanted time."""
        steps = max(20, 2000 // self.workload.batch)
        for _ in range(3):  # the speed of a few steps is a poor guess of that of many
            summary = self.train(steps)
            enough = summary["samples_per_second"] * self.seconds / self.workload.batch
            if steps >= enough / 4:
                break
            steps = math.ceil(min(enough, 20 * steps))
        self.steps = max(20, math.ceil(enough))

    def measure(self):
        summary = self.train(self.steps)
        return Measurement(summary["samples_per_second"], summary["train_loss"],
                           math.log(self.workload.widths[-1]))

    def train(self, steps):
        with tempfile.TemporaryDirectory() as directory:
            config = os.path.join(directory, "bench.toml")
            extra = dict(self.training)
            if self.workload.precision != "float32":
                extra["precision"] = self.workload.precision
            with open(config, "w") as file:
                file.write(configuration(self.workload, self.data, steps=steps, threads=self.threads, **extra))
            run = os.path.join(directory, "run")
            result = subprocess.run(command(self.program, self.ranks, "train", config, "--out", run),
                                    stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            if result.returncode == 2 and "precision" in result.stdout:
                raise Unavailable(f"this build has no precision {self.workload.precision}")
            if result.returncode != 0:
                raise RuntimeError(f"exit {result.returncode}: {complaint(result.stdout)}")
            with open(os.path.join(run, "summary.json")) as file:
                summary = json.load(file)
        if summary["steps"] != steps or summary["ranks"] != self.ranks:
            raise RuntimeError(f"did not do what was asked: {summary}")
        return summary


class WithPlainSgd(Lockstep):
    """Beside libxsmm's trainer, which has no moments to move."""

    family = "lockstep with plain SGD"

    def __init__(self, program, workload, *rest):
        super().__init__(program, workload.with_plain_sgd(), *rest)
        self.name += ", plain SGD"


def contenders(program, workload, data, seconds):
    """One rank with all threads, a rank for every core, and one thread where a step is small.

    Of few samples the tree over leaves is a good part of the work, and one leaf spares it to a rank
    that is alone anyhow. What moves by momentum is also trained by the rule of the peer that has none.
    """
    shapes = [(1, cores())]
    if workload.batch >= leaves():
        shapes.append((cores(), 1))
    if workload.batch == 1 or max(workload.hidden) < 128:
        shapes.append((1, 1))
    unique = list(dict.fromkeys(shapes))
    found = [Lockstep(program, workload, data, seconds, ranks, threads) for ranks, threads in unique]
    if 1 < workload.batch <= 4 * leaves() and max(workload.hidden) < 128:
        found.append(Lockstep(program, workload, data, seconds, 1, 1, leaves=1))
    if workload.optimizer == "momentum" and workload.precision == "float32":
        found.append(WithPlainSgd(program, workload, data, seconds, 1, cores()))
    return found
