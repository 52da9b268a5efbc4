"""Tasks: what each kind of model is for.

The one place that says so; errors, cards, evaluation, plots and the command line read it. It stays
out of the model's package, which travels to the Hub: recipes and released models are the
application's.
"""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Task:
    """The purpose of a model with a certain input transform.

    Attributes:
        verb: of the command line.
        recipe: that trains such a model.
        released: the model that comes with the package.
        description: one sentence, for the model's card.
        conditioned_on: drums that the model needs; "" for none.
        call: of the model's method, for the snippet of a card.
        made: how its drums are called in plots.
    """

    verb: str
    recipe: str
    released: str
    description: str
    conditioned_on: str
    call: str
    made: str


# Of new grooves. Chosen on the validation split: with it their bars resemble one another as those
# of drummers do.
SAMPLE_TEMPERATURE = 0.9
# Of drums for taps: greedy ones have far more hits in common with what drummers play.
TAP_TEMPERATURE = 0.0
SAMPLE_BPM = 100.0  # of new grooves, in quarters a minute

TAP = Task(
    verb="tap",
    recipe="tap_to_drums",
    released="musicvae-groove-4bar-tap",
    description="It generates drums for a tapped rhythm.",
    conditioned_on="taps",
    call=f"tap_to_drums(song.piano_roll, song.timing, temperature={TAP_TEMPERATURE:g})",
    made="generated from its taps",
)
# By the `input_transform` of a model's config.
TASKS = {
    "none": Task(
        verb="sample",
        recipe="groove_4bar",
        released="musicvae-groove-4bar",
        description="It generates drum grooves, reconstructs given ones from their latent, and "
        "interpolates between two.",
        conditioned_on="",
        call=f"sample(1, temperature={SAMPLE_TEMPERATURE}, "
        "generator=torch.Generator().manual_seed(0))",
        made="reconstructed",
    ),
    "humanize": Task(
        verb="humanize",
        recipe="humanize",
        released="musicvae-groove-4bar-humanize",
        description="It adds the velocity and timing of a drummer to given hits.",
        conditioned_on="hits",
        call="humanize(song.piano_roll)",
        made="humanized",
    ),
    "tap": TAP,
    "tap_fixed_velocity": TAP,
    "remove_drums": Task(
        verb="add",
        recipe="add_hihat",
        released="musicvae-groove-4bar-add-hihat",
        description="It adds drums to given ones.",
        conditioned_on="all other drums",
        call="add_drums(song.piano_roll, song.timing)",
        made="with drums added",
    ),
}
RELEASES = {task.verb: task for task in TASKS.values()}
# The recipe that makes each released model; that of grooves starts where another one ends.
RECIPES = {task.released: task.recipe for task in TASKS.values()} | {
    "musicvae-groove-4bar": "groove_4bar_fewer_bits"
}
FIRST_RECIPES = {"groove_4bar_fewer_bits": "groove_4bar"}


def sample_temperature(config: Any) -> float:
    """The temperature to draw new drums at: `SAMPLE_TEMPERATURE`, or 1 for a conditional model."""
    return 1.0 if config.is_conditioned else SAMPLE_TEMPERATURE


def task_of(config: Any) -> Task:
    """The task of a model, by its config.

    Raises:
        ValueError: its input transform has none.
    """
    if config.input_transform not in TASKS:
        raise ValueError(
            f"input_transform: found {config.input_transform!r}, expected one of {', '.join(TASKS)}"
        )
    return TASKS[config.input_transform]
