#!/usr/bin/python3
"""Writes tests/reference.h5: ten steps of training in PyTorch, for the tests to compare with.

    scripts/install reference && scripts/reference.py [--add] [OUT.h5]

One group per case. Its attributes are the configuration under this project's names (optimizer,
learning_rate, momentum, ..., loss, l1, l2, batch_size, steps); `units` (integers) and `activations`
("relu,relu,none") have one entry per dense layer; booleans are 0 or 1. Its members:

    x, y              100 samples in file order; y: int32 classes, or float32 targets of 5 outputs
    initial/NAME      parameters before the first step, exact in float32
    final64/NAME      parameters after ten steps in float64; final32: the same steps in float32
    gradient64/NAME   of the first batch's mean loss, without penalties
    losses64          mean loss of each batch before its update, without penalties
    evaluated64       with batch_norm: outputs for all of x after ten steps, in evaluation; evaluated32

With batch_norm each dense layer but the last is three entries: dense, batch_norm, activation. NAME is that
of an nn.Sequential's state dict over the entries of model.layers: "0.weight" is outputs x inputs; running
statistics are among initial and final. The group `forward` holds outputs instead (a network that ends in softmax).

Mean squared error is the mean over samples and outputs. Penalties act on weights, not on biases, nor
on batch_norm's weights; so do LAMB's decay and trust ratio, unless `biases` is set.
"""

import argparse
import os
import shutil
import tempfile

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[variable] = "1"  # one thread: the same sums, so the same file, every time

import h5py
import numpy as np
import torch

SAMPLES, INPUTS, UNITS, BATCH, STEPS = 100, 12, [9, 7, 5], 10, 10

# What a case leaves out. Names and meanings are those of the TOML sections [optimizer] and
# [regularization]; epsilon is outside the root in all of PyTorch's optimizers.
DEFAULTS = dict(
    activations=["relu", "relu", "none"],
    slope=0.01,  # of leaky_relu
    bias=True,
    batch_norm=False,
    affine=True,
    norm_momentum=0.1,
    norm_epsilon=1e-5,
    loss="cross_entropy",
    l1=0.0,
    l2=0.0,
    weight_decay=0.0,  # lamb
    biases=False,  # lamb: decay and ratio are for all tensors
    clip_norm=0.0,  # 0: off
)

CASES = {
    "sgd_sigmoid": dict(optimizer="sgd", learning_rate=0.5, activations=["sigmoid", "sigmoid", "none"]),
    "sgd_tanh_mse": dict(optimizer="sgd", learning_rate=0.1, activations=["tanh", "tanh", "none"],
                         loss="mean_squared_error"),
    "sgd_leaky_relu": dict(optimizer="sgd", learning_rate=0.1, slope=0.2,
                           activations=["leaky_relu", "leaky_relu", "none"]),
    "sgd_no_bias": dict(optimizer="sgd", learning_rate=0.1, bias=False),
    "sgd_mixed_mse": dict(optimizer="sgd", learning_rate=0.5, loss="mean_squared_error",
                          activations=["tanh", "relu", "sigmoid"]),
    "sgd_l1": dict(optimizer="sgd", learning_rate=0.1, l1=1e-3),
    "sgd_l1_l2": dict(optimizer="sgd", learning_rate=0.1, l1=1e-3, l2=1e-2,
                      activations=["tanh", "tanh", "none"]),
    "momentum": dict(optimizer="momentum", learning_rate=0.05, momentum=0.9, averaged=False),
    "momentum_averaged": dict(optimizer="momentum", learning_rate=0.2, momentum=0.9, averaged=True,
                              activations=["tanh", "sigmoid", "none"]),
    "adagrad": dict(optimizer="adagrad", learning_rate=0.05, epsilon=1e-10),
    "rmsprop": dict(optimizer="rmsprop", learning_rate=0.01, decay=0.99, epsilon=1e-8),
    "adam": dict(optimizer="adam", learning_rate=0.01, beta1=0.9, beta2=0.999, epsilon=1e-8),
    "adam_tanh_mse": dict(optimizer="adam", learning_rate=0.01, beta1=0.9, beta2=0.999, epsilon=1e-8,
                          activations=["tanh", "tanh", "none"], loss="mean_squared_error"),
    "adam_l2": dict(optimizer="adam", learning_rate=0.01, beta1=0.9, beta2=0.999, epsilon=1e-8, l2=1e-2,
                    activations=["tanh", "tanh", "none"]),
    # Without biases: before batch_norm their gradients are zero, but for rounding.
    "momentum_batch_norm": dict(optimizer="momentum", learning_rate=0.05, momentum=0.9, averaged=False,
                                batch_norm=True, bias=False),
    "adam_l2_batch_norm": dict(optimizer="adam", learning_rate=0.01, beta1=0.9, beta2=0.999, epsilon=1e-8,
                               l2=1e-2, activations=["tanh", "tanh", "none"], batch_norm=True, bias=False),
    "sgd_batch_norm_not_affine": dict(optimizer="sgd", learning_rate=0.1, loss="mean_squared_error",
                                      batch_norm=True, affine=False, norm_momentum=0.3,
                                      norm_epsilon=1e-3, bias=False),
    "lamb": dict(optimizer="lamb", learning_rate=0.05, beta1=0.9, beta2=0.999, epsilon=1e-6),
    "lamb_weight_decay": dict(optimizer="lamb", learning_rate=0.05, beta1=0.8, beta2=0.95, epsilon=1e-6,
                              weight_decay=0.1, activations=["tanh", "tanh", "none"],
                              loss="mean_squared_error"),
    "lamb_l2_biases": dict(optimizer="lamb", learning_rate=0.05, beta1=0.9, beta2=0.999, epsilon=1e-6,
                           weight_decay=0.1, biases=True, l2=1e-2, activations=["tanh", "sigmoid", "none"]),
    "lamb_clip_norm": dict(optimizer="lamb", learning_rate=0.05, beta1=0.9, beta2=0.99, epsilon=1e-6,
                           weight_decay=0.01, clip_norm=0.3, activations=["tanh", "tanh", "none"]),
    "lamb_batch_norm": dict(optimizer="lamb", learning_rate=0.05, beta1=0.9, beta2=0.999, epsilon=1e-6,
                            weight_decay=0.1, activations=["tanh", "tanh", "none"], batch_norm=True,
                            bias=False),
}


class Network(torch.nn.Module):
    """A Sequential in which a dense layer and its activation are one entry."""

    def __init__(self, case):
        super().__init__()
        self.slope = case["slope"]
        self.activations, layers = [], []  # entry by entry
        widths = [INPUTS] + UNITS
        for n_in, n_out, activation in zip(widths, widths[1:], case["activations"]):
            layers.append(torch.nn.Linear(n_in, n_out, bias=case["bias"]))
            if not case["batch_norm"] or n_out == UNITS[-1]:
                self.activations.append(activation)
                continue
            norm = torch.nn.BatchNorm1d(n_out, eps=case["norm_epsilon"], momentum=case["norm_momentum"],
                                        affine=case["affine"])
            if case["affine"]:  # others than 1 and 0, which would hide much
                torch.nn.init.uniform_(norm.weight, 0.5, 1.5)
                torch.nn.init.uniform_(norm.bias, -0.5, 0.5)
            layers += [norm, torch.nn.Identity()]
            self.activations += ["none", "none", activation]
        self.layers = torch.nn.Sequential(*layers)
        self.kink_distance = float("inf")  # the least |z| that a relu or leaky_relu met

    def forward(self, x):
        for layer, activation in zip(self.layers, self.activations):
            z = layer(x)
            if "relu" in activation:
                self.kink_distance = min(self.kink_distance, z.detach().abs().min().item())
            x = {
                "none": lambda: z,
                "sigmoid": lambda: torch.sigmoid(z),
                "tanh": lambda: torch.tanh(z),
                "relu": lambda: torch.relu(z),
                "leaky_relu": lambda: torch.nn.functional.leaky_relu(z, self.slope),
                "softmax": lambda: torch.softmax(z, 1),
            }[activation]()
        return x

    def named(self):
        return {name: p for name, p in self.layers.named_parameters()}

    def state(self):
        """Parameters and running statistics."""
        return {name: t for name, t in self.layers.state_dict().items() if "running" in name or name in self.named()}

    def weights(self):
        """Those that penalties act on."""
        return [p for p in self.named().values() if p.dim() == 2]


class AveragedMomentum(torch.optim.Optimizer):
    """v = b*v + (1-b)*g from v = 0, w -= lr*v. (torch.optim.SGD with dampening starts from v = g.)"""

    def __init__(self, groups, lr, momentum):
        super().__init__(groups, dict(lr=lr, momentum=momentum, weight_decay=0.0))

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                g = p.grad + group["weight_decay"] * p
                v = self.state[p].setdefault("v", torch.zeros_like(p))
                v.mul_(group["momentum"]).add_(g, alpha=1 - group["momentum"])
                p.add_(v, alpha=-group["lr"])


class Lamb(torch.optim.Optimizer):
    """Y. You et al., arXiv:1904.00962, algorithm 2 with phi(x) = x, written as it stands there. A group
    that is not `scaled` has no decay and a trust ratio of 1."""

    def __init__(self, groups, lr, betas, eps, decay):
        super().__init__(groups, dict(lr=lr, betas=betas, eps=eps, decay=decay, weight_decay=0.0))
        self.steps = 0

    @torch.no_grad()
    def step(self):
        self.steps += 1
        for group in self.param_groups:
            beta1, beta2 = group["betas"]
            for p in group["params"]:
                g = p.grad + group["weight_decay"] * p  # the penalty l2, not LAMB's decay
                state = self.state[p]
                m = state["m"] = beta1 * state.get("m", torch.zeros_like(p)) + (1 - beta1) * g
                v = state["v"] = beta2 * state.get("v", torch.zeros_like(p)) + (1 - beta2) * g**2
                r = (m / (1 - beta1**self.steps)) / ((v / (1 - beta2**self.steps)).sqrt() + group["eps"])
                if not group["scaled"]:
                    p.sub_(group["lr"] * r)
                    continue
                r = r + group["decay"] * p
                p.sub_(group["lr"] * p.norm() / r.norm() * r)


def make_optimizer(case, network):
    others = [p for p in network.named().values() if p.dim() < 2]
    groups = [dict(params=network.weights(), weight_decay=case["l2"])]
    if others:
        groups.append(dict(params=others, weight_decay=0.0))
    lr = case["learning_rate"]
    if case["optimizer"] == "lamb":
        for group in groups:
            scaled = group["params"] is groups[0]["params"] or case["biases"]
            group.update(scaled=scaled, weight_decay=case["l2"] if scaled else 0.0)
        return Lamb(groups, lr=lr, betas=(case["beta1"], case["beta2"]), eps=case["epsilon"],
                    decay=case["weight_decay"])
    if case["optimizer"] == "sgd":
        return torch.optim.SGD(groups, lr=lr)
    if case["optimizer"] == "momentum":
        if case["averaged"]:
            return AveragedMomentum(groups, lr=lr, momentum=case["momentum"])
        return torch.optim.SGD(groups, lr=lr, momentum=case["momentum"])
    if case["optimizer"] == "adagrad":
        return torch.optim.Adagrad(groups, lr=lr, eps=case["epsilon"])
    if case["optimizer"] == "rmsprop":
        return torch.optim.RMSprop(groups, lr=lr, alpha=case["decay"], eps=case["epsilon"])
    assert case["optimizer"] == "adam"
    return torch.optim.Adam(groups, lr=lr, betas=(case["beta1"], case["beta2"]), eps=case["epsilon"])


def train(case, initial, x, y, dtype):
    """Ten steps; returns final state, losses, the first gradient, evaluated outputs, the kink distance."""
    network = Network(case).to(dtype)
    with torch.no_grad():
        for name, t in network.state().items():
            t.copy_(initial[name])
    optimizer = make_optimizer(case, network)
    criterion = (torch.nn.CrossEntropyLoss() if case["loss"] == "cross_entropy"
                 else torch.nn.MSELoss())
    inputs = torch.from_numpy(x).to(dtype)
    targets = torch.from_numpy(y).long() if y.ndim == 1 else torch.from_numpy(y).to(dtype)
    losses, gradient = [], None
    for step in range(STEPS):
        batch = slice(step * BATCH, (step + 1) * BATCH)
        optimizer.zero_grad()
        loss = criterion(network(inputs[batch]), targets[batch])
        losses.append(loss.item())
        loss.backward()
        if gradient is None:
            gradient = {name: p.grad.clone() for name, p in network.named().items()}
        if case["clip_norm"]:
            norm = torch.nn.utils.clip_grad_norm_(network.parameters(), case["clip_norm"])
            assert norm > case["clip_norm"], f"a gradient of norm {norm} is not clipped"
        if case["l1"]:
            penalty = case["l1"] * sum(p.abs().sum() for p in network.weights())
            penalty.backward()  # adds to the gradients
        optimizer.step()
    final = {name: t.detach().clone() for name, t in network.state().items()}
    kink = network.kink_distance
    network.eval()
    with torch.no_grad():
        outputs = network(inputs)
    return final, losses, gradient, outputs, kink


def attribute(value):
    """Of types that C reads without ado: lists as "a,b,c", booleans as 0 and 1."""
    return ",".join(value) if isinstance(value, list) else int(value) if isinstance(value, bool) else value


def write_tensors(group, tensors):
    for name, tensor in tensors.items():
        group.create_dataset(name, data=tensor.detach().numpy())


def place_shared(file, group, key, values):
    """The same samples serve all cases: hard links to one dataset."""
    for other in file.values():
        if key in other and np.array_equal(other[key][...], values):
            group[key] = other[key]
            return
    group.create_dataset(key, data=values)


def write(path, add):
    torch.set_num_threads(1)
    torch.manual_seed(1)
    random = np.random.Generator(np.random.Philox(1))
    x = random.standard_normal((SAMPLES, INPUTS)).astype(np.float32)
    classes = random.integers(0, UNITS[-1], SAMPLES).astype(np.int32)
    targets = random.standard_normal((SAMPLES, UNITS[-1])).astype(np.float32)

    # The earliest format holds no times: the same values are the same file.
    with h5py.File(path, "r+" if add else "w", libver="earliest") as file:
        if not add:
            file.attrs["torch_version"] = str(torch.__version__)
            file.attrs["made_by"] = "scripts/reference.py"
        for number, (name, settings) in enumerate(CASES.items()):
            if name in file:
                continue
            case = {**DEFAULTS, **settings}
            torch.manual_seed(number + 1)
            initial = {n: t.detach().clone() for n, t in Network(case).state().items()}
            y = classes if case["loss"] == "cross_entropy" else targets
            final64, losses, gradient, outputs64, kink = train(case, initial, x, y, torch.float64)
            final32, _, _, outputs32, _ = train(case, initial, x, y, torch.float32)

            # Within rounding of a kink, float32 and float64 may rightly take different sides.
            assert kink > 1e-5, f"{name}: an input of a relu is {kink} from its kink: choose another seed"
            error = max((final32[n].double() - final64[n]).abs().max().item() for n in final64)
            moved = max((final64[n] - initial[n].double()).abs().max().item() for n in final64)
            print(f"{name:20} loss {losses[0]:.4f} .. {losses[-1]:.4f}  moved {moved:.2e}"
                  f"  |final32 - final64| {error:.1e}  least |z| at a kink {kink:.1e}")

            group = file.create_group(name)
            for key, value in case.items():
                group.attrs[key] = attribute(value)
            group.attrs["units"] = np.array(UNITS, dtype=np.int64)
            group.attrs["batch_size"] = BATCH
            group.attrs["steps"] = STEPS
            place_shared(file, group, "x", x)
            place_shared(file, group, "y", y)
            write_tensors(group.create_group("initial"), initial)
            write_tensors(group.create_group("final64"), final64)
            write_tensors(group.create_group("final32"), final32)
            write_tensors(group.create_group("gradient64"), gradient)
            group.create_dataset("losses64", data=np.array(losses))
            if case["batch_norm"]:
                group.create_dataset("evaluated64", data=outputs64.numpy())
                group.create_dataset("evaluated32", data=outputs32.numpy())

        if "forward" in file:
            return
        activations = ["leaky_relu", "leaky_relu", "softmax"]
        torch.manual_seed(0)
        network = Network({**DEFAULTS, "activations": activations, "slope": 0.2})
        group = file.create_group("forward")
        group.attrs["activations"] = attribute(activations)
        group.attrs["units"] = np.array(UNITS, dtype=np.int64)
        group.attrs["slope"] = 0.2
        group.attrs["bias"] = attribute(True)
        place_shared(file, group, "x", x)
        write_tensors(group.create_group("initial"), network.named())
        with torch.no_grad():
            group.create_dataset("outputs32", data=network(torch.from_numpy(x)).numpy())
            group.create_dataset(
                "outputs64", data=network.double()(torch.from_numpy(x).double()).numpy())


def main():
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", nargs="?", default=os.path.join(root, "tests", "reference.h5"))
    parser.add_argument("--add", action="store_true",
                        help="make only the cases that OUT.h5 lacks: PyTorch rounds in other ways on other "
                             "processors, and these leave the others' values as they are")
    arguments = parser.parse_args()
    out = arguments.out
    with tempfile.TemporaryDirectory() as directory:  # a failure leaves the old file as it is
        if arguments.add:
            shutil.copyfile(out, os.path.join(directory, "reference.h5"))
        write(os.path.join(directory, "reference.h5"), arguments.add)
        shutil.copyfile(os.path.join(directory, "reference.h5"), out)
    print(f"{out}: {len(CASES)} cases, {os.path.getsize(out)} bytes, PyTorch {torch.__version__}")


if __name__ == "__main__":
    main()
