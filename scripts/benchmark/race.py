"""scripts/bench race: seconds from a cold start to 98 % on MNIST's test images.

784-512-512-10, relu, Adam 1e-3, batches of 128, the test images after every epoch, and the end at the
first epoch that reaches the target. What counts is the wall time of the whole process, its start and the
reading of the data included, for each seed once, the contenders in turn. A further line, 'fewest
seconds', is lockstep with a recipe of its own, which ends at the same target.
"""

import json
import os
import statistics
import subprocess
import tempfile
import time

from . import lockstep, pytorch
from .comparison import progress
from .contender import Unavailable, cores, plural
from .workloads import Workload

RECIPE = Workload((512, 512), 128, "adam", 1e-3, 1.0)
TARGET = 0.98
LONGEST = 40  # epochs until a run counts as failed


class LockstepRunner:
    family = "lockstep"

    def __init__(self, options, ranks, threads, settings=()):
        self.options, self.ranks, self.threads, self.settings = options, ranks, threads, settings
        self.name = f"lockstep, {plural(ranks, 'rank')} x {plural(threads, 'thread')}"
        if settings:
            self.family = "fewest seconds"
            self.name = f"{self.name}, {' '.join(settings)}"

    def prepare(self):
        self.run(1)  # the first run of a program waits for the disk

    def run(self, seed):
        with tempfile.TemporaryDirectory() as directory:
            config, run = os.path.join(directory, "race.toml"), os.path.join(directory, "run")
            with open(config, "w") as file:
                file.write(lockstep.configuration(RECIPE, self.options.train, epochs=LONGEST, seed=seed,
                                                  threads=self.threads))
            settings = [f"data.validation={self.options.test}",
                        f"early_stopping.target_accuracy={TARGET}", *self.settings]
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

    def __init__(self, options, trials):
        """The fastest of `trials`, prepared contenders of the same recipe."""
        self.options, self.trials = options, trials
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
                "target": TARGET, "epochs": LONGEST}
        start = time.perf_counter()
        found = pytorch.trainer("pytorch_race.py", task, self.best.blas)
        return dict(found, seconds=time.perf_counter() - start)


def runners(options):
    shapes = list(dict.fromkeys([(1, cores()), (cores(), 1)]))
    found = [LockstepRunner(options, ranks, threads) for ranks, threads in shapes]
    left_out = []
    try:
        trials = pytorch.contenders(RECIPE, options.train, min(1.0, options.seconds))
        found.append(PyTorchRunner(options, trials))
    except Unavailable as reason:
        left_out.append(f"PyTorch: {reason}")
    if options.fastest:
        found.append(LockstepRunner(options, 1, cores(), tuple(options.fastest.split())))
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
    """Runs and prints the race; returns it for the JSON."""
    ready, left_out = runners(options)
    runs = {runner: [] for runner in ready}
    for seed in range(1, seeds + 1):
        for runner in ready:
            progress(f"race: seed {seed} of {seeds}: {runner.name}")
            runs[runner].append(runner.run(seed))
    progress("")
    print(f"MNIST to {100 * TARGET:g} % of the test images from a cold start, {plural(seeds, 'seed')}: "
          f"{RECIPE.name}")
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
    ratios = {}
    for family, what in (("lockstep", "same recipe"), ("fewest seconds", "its own recipe")):
        if family in fastest and "PyTorch" in fastest:
            ratios[family] = fastest["PyTorch"]["median"] / fastest[family]["median"]
            print(f"  PyTorch : lockstep, {what} = {ratios[family]:.2f}")
    if not ratios:
        print("  no ratio: not both sides reached the target with every seed")
    return dict(target=TARGET, recipe=RECIPE.name, results=results, left_out=left_out, ratios=ratios)
