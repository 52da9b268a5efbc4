"""Measures how long a recipe trains until the validation ELBO is reached."""

import argparse
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from measure import print_machine

ROOT = Path(__file__).parents[1]
STEP, ELBO = re.compile(r"^step (\d+)"), re.compile(r"^ +elbo +(\S+)")


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", default="groove_4bar", help="recipe")
    parser.add_argument("--data_dir", help="of the recipe's data")
    parser.add_argument("--elbo", type=float, default=-326.0, help="to be reached, in nats")
    parser.add_argument("--eval_steps", type=int, default=200, help="between evaluations")
    arguments = parser.parse_args(argv)
    print_machine()
    with tempfile.TemporaryDirectory() as folder:
        print_time(arguments, folder)


def print_time(arguments: argparse.Namespace, folder: str) -> None:
    """Trains in the folder, and prints a line for each evaluation until the last one."""
    command = [sys.executable, str(ROOT / "train_accelerate.py"), "--config", arguments.config]
    command += ["--output_dir", folder, "--eval_steps", str(arguments.eval_steps)]
    command += ["--data_dir", arguments.data_dir] if arguments.data_dir else []
    start, step = time.perf_counter(), None
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as training:
        for line in training.stdout:
            if match := STEP.match(line):
                step = match[1]
            elif match := ELBO.match(line):
                minutes = (time.perf_counter() - start) / 60
                print(f"step {step}, ELBO {match[1]}: {minutes:.1f} minutes", flush=True)
                if float(match[1]) >= arguments.elbo:
                    training.terminate()
                    training.communicate()  # it still writes a checkpoint, and says so
                    return
    if training.returncode:
        raise SystemExit(training.returncode)


if __name__ == "__main__":
    main()
