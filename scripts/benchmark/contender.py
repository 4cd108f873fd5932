"""What every contender is to the comparison."""

import os
import subprocess
from dataclasses import dataclass
from typing import Optional


class Unavailable(Exception):
    """A contender that cannot take part in a row; the text says why, in one line."""


@dataclass
class Measurement:
    samples_per_second: float
    loss: Optional[float]  # None: too few steps to tell
    first_loss: float  # what the loss was, or chance would give, before training


class Contender:
    family = ""  # lockstep, lockstep with plain SGD, PyTorch, libxsmm, FANN
    name = ""
    settings = ""  # what prepare() found best, for the report

    def prepare(self):
        """Finds the fastest settings, once per row, not measured. May raise Unavailable."""

    def measure(self):
        """Trains for about the asked seconds; returns a Measurement."""
        raise NotImplementedError


def cores():
    return len(os.sched_getaffinity(0))


def plural(count, noun):
    return f"{count} {noun}{'s' * (count != 1)}"


def environment(threads=None, library_path=None):
    """Nothing of the user's settings for threads reaches a peer: they would decide its speed."""
    kept = {key: value for key, value in os.environ.items()
            if not key.startswith(("OPENBLAS_", "GOTO_", "OMP_", "GOMP_", "KMP_", "MKL_"))}
    if threads:
        kept["OMP_NUM_THREADS"] = str(threads)
    if library_path:
        kept["LD_LIBRARY_PATH"] = library_path
    return kept


def run(command, **options):
    """Standard output of a command; a failure is an error with the end of what it said."""
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)
    if result.returncode != 0:
        said = (result.stderr.strip() or result.stdout.strip()).splitlines()[-5:]
        raise RuntimeError(f"{os.path.basename(command[0])}: exit {result.returncode}: " + " / ".join(said))
    return result.stdout
