"""The rows of the comparison: what is trained, and the ratio to the best PyTorch that is wanted."""

from dataclasses import dataclass, replace

INPUTS, CLASSES = 784, 10  # Fashion-MNIST


@dataclass(frozen=True)
class Workload:
    hidden: tuple
    batch: int
    optimizer: str  # sgd, momentum, adam
    learning_rate: float
    wanted: float  # times the best PyTorch
    activation: str = "relu"
    precision: str = "float32"

    @property
    def name(self):
        return (f"{'-'.join(map(str, self.hidden))} batch {self.batch} {self.precision} "
                f"{self.optimizer} {self.activation}")

    @property
    def widths(self):
        return [INPUTS, *self.hidden, CLASSES]

    @property
    def flop_per_sample(self):
        """Forward and weight gradients use every weight, input gradients all but the first layer's;
        a multiply-add is two operations."""
        weights = [a * b for a, b in zip(self.widths, self.widths[1:])]
        return 2 * (3 * sum(weights) - weights[0])

    def with_plain_sgd(self):
        """The same by the one rule that libxsmm's trainer knows."""
        # What momentum 0.9 adds up to, in one step.
        rate = {"sgd": 1, "momentum": 5}.get(self.optimizer, 0) * self.learning_rate or 0.1
        return replace(self, optimizer="sgd", learning_rate=rate)


WORKLOADS = [
    Workload((512, 512), 128, "momentum", 0.02, 2.0),
    Workload((512, 512), 1024, "momentum", 0.05, 1.7),
    Workload((512, 512), 128, "adam", 1e-3, 2.5),
    Workload((2048, 2048), 128, "momentum", 0.01, 1.8),
    Workload((2048, 2048), 1024, "momentum", 0.02, 1.2),
    Workload((512, 512), 1024, "momentum", 0.05, 1.5, precision="bfloat16"),
    Workload((2048, 2048), 1024, "momentum", 0.02, 1.5, precision="bfloat16"),
    Workload((16, 16), 10, "sgd", 0.5, 35, activation="sigmoid"),
    Workload((16, 16), 1, "sgd", 0.1, 60, activation="sigmoid"),
    Workload((512, 512), 1, "sgd", 0.01, 6),
]

# Against libxsmm in the float32 rows, and FANN where it takes part.
WANTED_OF_OTHERS = 1.1
