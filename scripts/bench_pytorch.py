"""Training speed of lockstep and PyTorch, side by side: run by scripts/bench-pytorch.

784-512-512-10, relu, cross entropy, float32, whole steps (batch, forward, backward, update) on
Fashion-MNIST. Every round measures each contender once, one after the other, so that whatever else
the machine does falls on all of them; the table shows medians over the rounds.

PyTorch gets what makes it fastest: the data as one float tensor in memory; each epoch's order gathered
once, or batches one by one; foreach, fused or plain updates; OpenBLAS with threads of its own or
OpenMP's. A trial chooses for each number of threads. lockstep runs as `lockstep train`, and its own
summary says its speed.
"""

import argparse
import glob
import itertools
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
WIDTHS = [784, 512, 512, 10]
BATCH = 128
LEARNING_RATE = {"sgd": 0.1, "momentum": 0.02, "adam": 1e-3}
# Both sides learn the data while they are timed; a loss that stays above says that one does not.
HIGHEST_LOSS = 0.9
LONGEST = 20.0  # seconds for one measurement of PyTorch, which is slow where others use the cores

# Multiply-adds of a step per sample: forward and weight gradients use every weight, input gradients
# all but the first layer's; two floating-point operations each.
WEIGHTS = [n_in * n_out for n_in, n_out in zip(WIDTHS, WIDTHS[1:])]
FLOP_PER_SAMPLE = 2 * (3 * sum(WEIGHTS) - WEIGHTS[0])


# ---- PyTorch, in a process of its own (--peer): prints one JSON object ----------------------------


def peer_optimizer(name, parameters, settings):
    import torch

    options = dict(lr=LEARNING_RATE[name])
    if settings["update"] != "plain":
        options[settings["update"]] = True
    elif "foreach" in torch.optim.SGD.__init__.__code__.co_varnames:
        options["foreach"] = False
    if name == "adam":
        return torch.optim.Adam(parameters, **options)
    return torch.optim.SGD(parameters, momentum=0.9 if name == "momentum" else 0.0, **options)


def peer_batches(x, y, gather):
    """Shuffled batches for ever; the last, smaller one of an epoch is left out."""
    import torch

    while True:
        order = torch.randperm(len(x))
        if gather == "epoch":
            x_epoch, y_epoch = x[order], y[order]
            for i in range(0, len(x) - BATCH + 1, BATCH):
                yield x_epoch[i : i + BATCH], y_epoch[i : i + BATCH]
        else:
            for i in range(0, len(x) - BATCH + 1, BATCH):
                picked = order[i : i + BATCH]
                yield x.index_select(0, picked), y.index_select(0, picked)


def peer_train(optimizer_name, settings, x, y, steps):
    """Returns (samples/s, mean loss of the last tenth, or None if time was up before).

    The gathering counts, as it does in lockstep."""
    import time

    import torch

    torch.manual_seed(1)
    layers = []
    for n_in, n_out in zip(WIDTHS, WIDTHS[1:]):
        layers += [torch.nn.Linear(n_in, n_out), torch.nn.ReLU()]
    network = torch.nn.Sequential(*layers[:-1])
    optimizer = peer_optimizer(optimizer_name, network.parameters(), settings)
    criterion = torch.nn.CrossEntropyLoss()
    batches = peer_batches(x, y, settings["gather"])

    def step():
        inputs, targets = next(batches)
        optimizer.zero_grad(set_to_none=True)
        loss = criterion(network(inputs), targets)
        loss.backward()
        optimizer.step()
        return loss.detach()

    for _ in range(20):
        step()
    losses = []
    start = time.perf_counter()
    seconds = 0.0
    while len(losses) < steps and seconds < LONGEST:
        losses.append(step())
        seconds = time.perf_counter() - start
    loss = torch.stack(losses[-max(1, steps // 10) :]).mean().item()
    return len(losses) * BATCH / seconds, loss if len(losses) == steps else None


def peer_limit():
    """GFLOP/s of one large matrix product: the most that any training step could reach."""
    import time

    import torch

    a, b = torch.randn(2048, 2048), torch.randn(2048, 2048)
    a @ b
    best = math.inf
    for _ in range(8):
        start = time.perf_counter()
        a @ b
        best = min(best, time.perf_counter() - start)
    return 2 * 2048**3 / best / 1e9


def peer(arguments):
    import h5py
    import torch

    torch.set_num_threads(arguments.threads)
    with h5py.File(arguments.data) as file:
        x = torch.from_numpy(file["x"][:]).reshape(-1, WIDTHS[0]).float() / 255
        y = torch.from_numpy(file["y"][:]).long()
    if arguments.settings:
        speed, loss = peer_train(arguments.optimizer, json.loads(arguments.settings), x, y, arguments.steps)
        return dict(samples_per_second=speed, loss=loss)

    trials = []
    for gather, update in itertools.product(("epoch", "batch"), ("plain", "foreach", "fused")):
        settings = dict(gather=gather, update=update)
        try:
            speed, _ = peer_train(arguments.optimizer, settings, x, y, max(1, arguments.steps // 8))
        except (TypeError, RuntimeError):
            continue  # this version of PyTorch has no such update on the processor
        trials.append((speed, settings))
    speed, settings = max(trials, key=lambda trial: trial[0])
    return dict(samples_per_second=speed, settings=settings, limit_gflops=peer_limit(),
                version=str(torch.__version__))


# ---- the comparison -------------------------------------------------------------------------------


def blas_folders():
    """Where the builds of OpenBLAS are, [""] if there are none: the system's libblas.so.3 it is then."""
    return sorted(glob.glob("/usr/lib/*/openblas-*")) or [""]


def run_peer(arguments, optimizer, threads, blas, settings=None):
    command = [sys.executable, __file__, "--peer", "--data", arguments.data, "--steps", str(arguments.steps),
               "--optimizer", optimizer, "--threads", str(threads)]
    if settings:
        command += ["--settings", json.dumps(settings)]
    environment = {key: value for key, value in os.environ.items()
                   if not key.startswith(("OPENBLAS_", "OMP_", "GOMP_", "MKL_"))}
    if blas:
        environment["LD_LIBRARY_PATH"] = blas
    return json.loads(subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE).stdout)


def run_lockstep(arguments, optimizer, ranks, threads):
    layers = ", ".join([f'{{ dense = {n}, activation = "relu" }}' for n in WIDTHS[1:-1]]
                       + [f"{{ dense = {WIDTHS[-1]} }}"])
    with tempfile.TemporaryDirectory() as directory:
        config = os.path.join(directory, "bench.toml")
        with open(config, "w") as file:
            file.write(f"""
[data]
train = "{arguments.data}"
[model]
layers = [{layers}]
[optimizer]
name = "{optimizer}"
learning_rate = {LEARNING_RATE[optimizer]}
[training]
batch_size = {BATCH}
steps = {arguments.steps}
threads = {threads}
[checkpoint]
every_epochs = 0
""")
        command = [arguments.lockstep, "train", config, "--out", os.path.join(directory, "run")]
        if ranks > 1:
            command = ["mpirun", "-np", str(ranks), "--bind-to", "none"] + command
        result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if result.returncode != 0:
            sys.exit(f"{' '.join(command)}: exit {result.returncode}\n{result.stdout}")
        with open(os.path.join(directory, "run", "summary.json")) as file:
            summary = json.load(file)
    assert summary["steps"] == arguments.steps and summary["ranks"] == ranks, summary
    return dict(samples_per_second=summary["samples_per_second"], loss=summary["train_loss"],
                instruction_set=summary["instruction_set"])


def processor():
    with open("/proc/cpuinfo") as file:
        for line in file:
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return os.uname().machine


def progress(text):
    if sys.stderr.isatty():
        print(f"\r{text:79}\r", end="", file=sys.stderr, flush=True)


def compare(arguments):
    cores = len(os.sched_getaffinity(0))
    report = dict(processor=processor(), cores=cores, network=WIDTHS, batch_size=BATCH,
                  steps=arguments.steps, rounds=arguments.rounds, results=[])
    for optimizer in arguments.optimizers.split(","):
        contenders = {}
        for threads in sorted({1, cores}):
            trials = [(run_peer(arguments, optimizer, threads, blas), blas) for blas in blas_folders()]
            trial, blas = max(trials, key=lambda pair: pair[0]["samples_per_second"])
            settings = trial["settings"]
            report["pytorch"] = trial["version"]
            report["limit_gflops"] = max([report.get("limit_gflops", 0)]
                                         + [t["limit_gflops"] for t, _ in trials])
            name = f"PyTorch {trial['version']}, {threads} thread{'s' * (threads > 1)}"
            contenders[name] = dict(
                settings=f"{settings['update']} update, gathered per {settings['gather']}, "
                         f"{os.path.basename(blas) or 'system BLAS'}",
                run=lambda threads=threads, blas=blas, settings=settings:
                    run_peer(arguments, optimizer, threads, blas, settings))
        for ranks, threads in sorted({(1, cores), (cores, 1)}):
            name = f"lockstep, {ranks} rank{'s' * (ranks > 1)} x {threads} thread{'s' * (threads > 1)}"
            contenders[name] = dict(
                settings="mpirun --bind-to none" if ranks > 1 else "",
                run=lambda ranks=ranks, threads=threads: run_lockstep(arguments, optimizer, ranks, threads))

        speeds = {name: [] for name in contenders}
        for round_number in range(arguments.rounds):
            for name, contender in contenders.items():
                progress(f"{optimizer}, round {round_number + 1}/{arguments.rounds}: {name}")
                result = contender["run"]()
                if result["loss"] is not None and not result["loss"] < HIGHEST_LOSS:
                    sys.exit(f"{name}: loss {result['loss']} after {arguments.steps} steps: it does not learn")
                contender["loss"] = result["loss"]
                speeds[name].append(result["samples_per_second"])
        progress("")

        medians = {name: statistics.median(values) for name, values in speeds.items()}
        best_peer = max(value for name, value in medians.items() if name.startswith("PyTorch"))
        print(f"{optimizer}: {'-'.join(map(str, WIDTHS))}, relu, batch {BATCH}, float32, "
              f"median of {arguments.rounds} x {arguments.steps} steps")
        print(f"  {'':34} {'samples/s':>10} {'range':>19} {'GFLOP/s':>8} {'ratio':>6}  loss   settings")
        for name, median in medians.items():
            values, loss = speeds[name], contenders[name]["loss"]
            print(f"  {name:34} {median:10,.0f} {min(values):9,.0f}-{max(values):9,.0f} "
                  f"{median * FLOP_PER_SAMPLE / 1e9:8.1f} {median / best_peer:6.2f}  "
                  f"{'  -  ' if loss is None else f'{loss:.3f}'}  {contenders[name]['settings']}")
            report["results"].append(dict(
                optimizer=optimizer, contender=name, settings=contenders[name]["settings"],
                samples_per_second=values, median=median, ratio_to_best_pytorch=median / best_peer,
                loss=loss))
        print()
    print(f"{report['processor']}, {cores} cores. Ratio: to the best PyTorch line. "
          f"Limit: {report['limit_gflops']:.0f} GFLOP/s, PyTorch's product of 2048 x 2048 matrices here.")
    if arguments.json:
        with open(arguments.json, "w") as file:
            json.dump(report, file, indent=2)
            file.write("\n")
        print(f"Written to {arguments.json}")


def main():
    parser = argparse.ArgumentParser(prog="scripts/bench-pytorch", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--optimizers", default="momentum,adam",
                        help="of sgd, momentum, adam (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=800, help="per measurement (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="default: %(default)s")
    parser.add_argument("--data", default=os.path.join(ROOT, "data", "fashion-train.h5"))
    parser.add_argument("--lockstep", default=os.path.join(ROOT, "build", "lockstep"), help="the program")
    parser.add_argument("--json", metavar="FILE", help="write all measurements there")
    parser.add_argument("--peer", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--optimizer", help=argparse.SUPPRESS)
    parser.add_argument("--threads", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--settings", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    arguments.data = os.path.abspath(arguments.data)
    if arguments.peer:
        print(json.dumps(peer(arguments)))
        return
    unknown = set(arguments.optimizers.split(",")) - set(LEARNING_RATE)
    if unknown:
        parser.error(f"unknown optimizer: {', '.join(sorted(unknown))}")
    compare(arguments)


if __name__ == "__main__":
    main()
