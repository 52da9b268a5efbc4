"""Trains a MusicVAE on drum MIDI: a model folder with new MIDI files and a picture of them.

    accelerate launch train_accelerate.py --config quickstart

Arguments come from a YAML recipe (--config) and from the command line, which wins.
"""

import sys

from musicvae.terminal import one_line_errors


def main() -> None:
    from musicvae.training.arguments import parse_arguments
    from musicvae.training.trainer import train_model

    train_model(parse_arguments(sys.argv[1:], __doc__.splitlines()[0]))


if __name__ == "__main__":
    with one_line_errors("train_accelerate.py"):
        main()
