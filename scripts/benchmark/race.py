"""scripts/bench race: seconds from a cold start to 98 % on MNIST's test images.

A recipe is a network, an optimizer, the number of epochs in which its learning rate falls to zero along a
line, and the kind of initial weights, the same for all. The test images are classified after every epoch;
the first that reaches the target is the end. What counts is the wall time of the whole process, its start
and the reading of the data included, for each seed once, the contenders in turn. The first recipe trains
the network of the comparison of steps, the second was found to take lockstep the fewest seconds.
"""

import json
import os
import statistics
import subprocess
import tempfile
import time
from dataclasses import dataclass

from . import lockstep, pytorch
from .comparison import progress
from .contender import Unavailable, cores, plural
from .workloads import Workload

TARGET = 0.98


@dataclass(frozen=True)
class Recipe:
    workload: Workload
    epochs: int

    @property
    def name(self):
        return (f"{self.workload.name}, learning rate {self.workload.learning_rate:g} falling to 0 in "
                f"{self.epochs} epochs")


# Three times as fast is wanted.
RECIPES = [
    Recipe(Workload((512, 512), 128, "adam", 3e-3, 3.0), 2),
    Recipe(Workload((256,), 96, "adam", 5e-3, 3.0), 3),
]


class LockstepRunner:
    family = "lockstep"

    def __init__(self, options, recipe, ranks, threads):
        self.options, self.recipe, self.ranks, self.threads = options, recipe, ranks, threads
        self.name = f"lockstep, {plural(ranks, 'rank')} x {plural(threads, 'thread')}"

    def prepare(self):
        self.run(1)  # the first run of a program waits for the disk

    def run(self, seed):
        with tempfile.TemporaryDirectory() as directory:
            config, run = os.path.join(directory, "race.toml"), os.path.join(directory, "run")
            with open(config, "w") as file:
                file.write(lockstep.configuration(self.recipe.workload, self.options.train, seed=seed,
                                                  epochs=self.recipe.epochs, threads=self.threads))
            settings = [f"data.validation={self.options.test}", "optimizer.schedule=linear",
                        f"early_stopping.target_accuracy={TARGET}"]
            command = lockstep.command(self.options.lockstep, self.ranks, "train", config, "--out", run,
                                       *(word for setting in settings for word in ("--set", setting)))
            start = time.perf_counter()
            result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            seconds = time.perf_counter() - start
            if result.returncode == 2:
                raise Unavailable("this build refuses the recipe: " + lockstep.complaint(result.stdout))
            if result.returncode != 0:
                raise RuntimeError(f"exit {result.returncode}: {lockstep.complaint(result.stdout)}")
            with open(os.path.join(run, "metrics.jsonl")) as file:
                last = [json.loads(line) for line in file][-1]
        return dict(seconds=seconds, accuracy=last["validation_accuracy"], epochs=last["epoch"])


class PyTorchRunner:
    family = "PyTorch"

    def __init__(self, options, recipe):
        """The fastest of the contenders for the recipe's steps."""
        self.options, self.recipe = options, recipe
        self.trials = pytorch.contenders(recipe.workload, options.train, min(1.0, options.seconds))
        self.name = f"PyTorch {pytorch.installed()}"

    def prepare(self):
        speeds = []
        for trial in self.trials:
            trial.prepare()
            speeds.append(trial.measure().samples_per_second)
        self.best = self.trials[speeds.index(max(speeds))]
        self.name = f"{self.best.name}, {self.best.settings}"
        self.run(1)

    def run(self, seed):
        task = {**self.best.task, "data": self.options.train, "test": self.options.test, "seed": seed,
                "target": TARGET, "epochs": self.recipe.epochs}
        start = time.perf_counter()
        found = pytorch.trainer("pytorch_race.py", task, self.best.blas)
        return dict(found, seconds=time.perf_counter() - start)


def runners(options, recipe):
    shapes = list(dict.fromkeys([(1, cores()), (cores(), 1)]))
    found = [LockstepRunner(options, recipe, ranks, threads) for ranks, threads in shapes]
    left_out = []
    try:
        found.append(PyTorchRunner(options, recipe))
    except Unavailable as reason:
        left_out.append(f"PyTorch: {reason}")
    ready = []
    for runner in found:
        progress(f"race: {runner.name}: trial")
        try:
            runner.prepare()
            ready.append(runner)
        except (Unavailable, RuntimeError) as reason:
            left_out.append(f"{runner.name}: {reason}")
    return ready, left_out


def race(options, seeds):
    """Runs and prints the races; returns them for the JSON."""
    return dict(target=TARGET, recipes=[race_by(recipe, options, seeds) for recipe in RECIPES])


def race_by(recipe, options, seeds):
    ready, left_out = runners(options, recipe)
    runs = {runner: [] for runner in ready}
    for seed in range(1, seeds + 1):
        for runner in ready:
            progress(f"race: seed {seed} of {seeds}: {runner.name}")
            runs[runner].append(runner.run(seed))
    progress("")
    print(f"MNIST to {100 * TARGET:g} % of the test images from a cold start, {plural(seeds, 'seed')}: "
          f"{recipe.name}")
    print(f"  {'median s':>9} {'range':>14} {'epochs':>7} {'reached':>8}")
    results = []
    for runner, found in runs.items():
        seconds = [run["seconds"] for run in found]
        reached = sum(run["accuracy"] >= TARGET for run in found)
        result = dict(contender=runner.name, family=runner.family, median=statistics.median(seconds),
                      runs=found, reached=reached)
        results.append(result)
        print(f"  {result['median']:9.2f} {f'{min(seconds):.2f}-{max(seconds):.2f}':>14} "
              f"{statistics.median(run['epochs'] for run in found):7g} {f'{reached}/{len(found)}':>8}  {runner.name}")
    for line in left_out:
        print(f"  left out: {line}")
    fastest = {}
    for result in results:
        if result["reached"] == seeds and result["median"] < fastest.get(result["family"], result)["median"] + 1e-9:
            fastest[result["family"]] = result
    ratio = None
    if "lockstep" in fastest and "PyTorch" in fastest:
        ratio = fastest["PyTorch"]["median"] / fastest["lockstep"]["median"]
        print(f"  PyTorch : lockstep = {ratio:.2f} ({recipe.workload.wanted:g} wanted)")
    else:
        print("  no ratio: not both sides reached the target with every seed")
    return dict(recipe=recipe.name, results=results, left_out=left_out, ratio=ratio)
