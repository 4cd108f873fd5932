"""PyTorch's run in the race, a whole process: reads MNIST, trains by the recipe of race.py, tests after
every epoch, stops at the target. Run by race.py; the one argument is the task as JSON, the answer is JSON.
"""

import json
import math
import os
import sys

import torch

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import pytorch_trainer  # noqa: E402: its folder is on the path only now


def initialize(network):
    """As lockstep draws them: he before relu, xavier last, biases of zero."""
    *hidden, last = [layer for layer in network if isinstance(layer, torch.nn.Linear)]
    for layer in hidden:
        torch.nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    torch.nn.init.xavier_uniform_(last.weight)
    for layer in (*hidden, last):
        torch.nn.init.zeros_(layer.bias)


def main():
    task = json.loads(sys.argv[1])
    torch.set_num_threads(task["threads"])
    torch.manual_seed(task["seed"])
    widths, size = task["widths"], task["batch"]
    x, y = pytorch_trainer.read(task["data"], widths[0])
    x_test, y_test = pytorch_trainer.read(task["test"], widths[0])
    network = pytorch_trainer.new_network(widths, task["activation"])
    initialize(network)
    optimizer = pytorch_trainer.new_optimizer(task["optimizer"], task["learning_rate"], task["update"],
                                              network.parameters())
    criterion = torch.nn.CrossEntropyLoss()
    accuracy, epochs, step = 0.0, 0, 0
    steps = task["epochs"] * math.ceil(len(x) / size)
    at_once = size if task["gather"] == "by batch" else pytorch_trainer.GATHERED_AT_ONCE // size * size
    while accuracy < task["target"] and epochs < task["epochs"]:
        order = torch.randperm(len(x))
        for begin in range(0, len(x), at_once):
            picked = order[begin : begin + at_once]
            x_some, y_some = x.index_select(0, picked), y.index_select(0, picked)
            for i in range(0, len(picked), size):
                for group in optimizer.param_groups:
                    group["lr"] = task["learning_rate"] * (1 - step / steps)
                step += 1
                optimizer.zero_grad(set_to_none=True)
                criterion(network(x_some[i : i + size]), y_some[i : i + size]).backward()
                optimizer.step()
        with torch.no_grad():
            right = sum((network(x_part).argmax(1) == y_part).sum().item()
                        for x_part, y_part in zip(x_test.split(1000), y_test.split(1000)))
        accuracy = right / len(x_test)
        epochs += 1
    print(json.dumps(dict(accuracy=accuracy, epochs=epochs)))


if __name__ == "__main__":
    main()
