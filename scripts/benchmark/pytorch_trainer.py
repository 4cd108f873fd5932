"""Trains with PyTorch for a given time, in a process of its own; run by pytorch.py.

The one argument is the task as JSON; the answer, on standard output, is JSON too. A task without
"update" is a trial of all settings.
"""

import itertools
import json
import math
import sys
import time

import h5py
import torch

GATHERED_AT_ONCE = 8192
WARM_UP = 20  # steps, no more than a tenth of the time
JUDGED = 20  # steps: with fewer, whether the loss falls is not known yet
SLOW = 10.0  # seconds for a trial: then the settings do not matter, the arithmetic does


def new_network(widths, activation):
    layers = []
    for n_in, n_out in zip(widths, widths[1:]):
        layers += [torch.nn.Linear(n_in, n_out), torch.nn.ReLU() if activation == "relu" else torch.nn.Sigmoid()]
    return torch.nn.Sequential(*layers[:-1])


def new_optimizer(name, learning_rate, update, parameters):
    options = dict(lr=learning_rate)
    kind = torch.optim.Adam if name == "adam" else torch.optim.SGD
    if update != "plain":
        options[update] = True
    elif "foreach" in kind.__init__.__code__.co_varnames:
        options["foreach"] = False
    if name == "momentum":
        options["momentum"] = 0.9
    return kind(parameters, **options)


def batches(x, y, size, gather):
    """Shuffled batches for ever; the last, smaller one of an epoch is left out."""
    at_once = size if gather == "by batch" else max(size, GATHERED_AT_ONCE // size * size)
    while True:
        order = torch.randperm(len(x))
        for begin in range(0, len(x) - size + 1, at_once):
            picked = order[begin : begin + at_once]
            x_some, y_some = x.index_select(0, picked), y.index_select(0, picked)
            for i in range(0, len(picked) - size + 1, size):
                yield x_some[i : i + size], y_some[i : i + size]


def train(task, x, y, update, gather, seconds):
    torch.manual_seed(1)
    network = new_network(task["widths"], task["activation"])
    optimizer = new_optimizer(task["optimizer"], task["learning_rate"], update, network.parameters())
    criterion = torch.nn.CrossEntropyLoss()
    source = batches(x, y, task["batch"], gather)

    def step():
        inputs, targets = next(source)
        optimizer.zero_grad(set_to_none=True)
        if task["bfloat16"]:
            with torch.autocast("cpu", dtype=torch.bfloat16):
                loss = criterion(network(inputs), targets)
        else:
            loss = criterion(network(inputs), targets)
        loss.backward()
        optimizer.step()
        return loss.detach()

    losses = []
    start = time.perf_counter()
    while len(losses) < WARM_UP and (time.perf_counter() - start < seconds / 10 or len(losses) < 2):
        losses.append(step())
    warm_up = len(losses)
    start = time.perf_counter()
    spent = 0.0
    while spent < seconds:
        losses.append(step())
        spent = time.perf_counter() - start
    part = max(1, len(losses) // 10)
    judged = len(losses) >= JUDGED
    return dict(samples_per_second=(len(losses) - warm_up) * task["batch"] / spent,
                first_loss=max(math.log(task["widths"][-1]), torch.stack(losses[:part]).mean().item()),
                loss=torch.stack(losses[-part:]).mean().item() if judged else None, update=update, gather=gather)


def read(path, values):
    with h5py.File(path) as file:
        return (torch.from_numpy(file["x"][:]).reshape(-1, values).float() / 255,
                torch.from_numpy(file["y"][:]).long())


def main():
    task = json.loads(sys.argv[1])
    torch.set_num_threads(task["threads"])
    x, y = read(task["data"], task["widths"][0])
    if "update" in task:
        print(json.dumps(train(task, x, y, task["update"], task["gather"], task["seconds"])))
        return
    best = dict(samples_per_second=0)
    start = time.perf_counter()
    for update, gather in itertools.product(("plain", "foreach", "fused"), ("by batch", "in chunks")):
        if best["samples_per_second"] > 0 and time.perf_counter() - start > SLOW + 6 * task["seconds"]:
            break
        try:
            found = train(task, x, y, update, gather, task["seconds"])
        except (TypeError, RuntimeError):
            continue  # this version of PyTorch has no such update on the processor
        best = max(best, found, key=lambda trial: trial["samples_per_second"])
    print(json.dumps(best))


if __name__ == "__main__":
    main()
