"""Trains a MusicVAE on drum MIDI: a model folder with new MIDI files and a picture of them.

    accelerate launch train_accelerate.py --config quickstart

Arguments come from a YAML recipe (--config) and from the command line, which wins.
"""

import sys

from musicvae.training.arguments import parse_arguments
from musicvae.training.trainer import train_model


def main() -> None:
    train_model(parse_arguments(sys.argv[1:], __doc__.splitlines()[0]))


if __name__ == "__main__":
    main()
