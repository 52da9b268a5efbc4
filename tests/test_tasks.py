"""The table of tasks, against what it names."""

from types import SimpleNamespace
from typing import get_args

import pytest

from modeling_musicvae import MusicVAEConfig, MusicVAEModel
from musicvae.tasks import TASKS, task_of
from musicvae.training.arguments import parse_arguments

each_task = pytest.mark.parametrize("transform", TASKS)


def test_every_input_transform_has_a_task():
    annotation = MusicVAEConfig.__annotations__["input_transform"]
    assert set(TASKS) == set(get_args(annotation))


@each_task
def test_the_recipe_of_a_task_trains_a_model_of_its_input_transform(transform):
    architecture = parse_arguments(["--config", TASKS[transform].recipe]).architecture
    assert architecture.input_transform == transform.removesuffix("_fixed_velocity")


@each_task
def test_a_model_has_the_method_that_a_task_calls(transform):
    method, _, _ = TASKS[transform].call.partition("(")
    assert callable(getattr(MusicVAEModel, method))


def test_an_input_transform_without_a_task_is_refused_by_name():
    with pytest.raises(ValueError, match="^input_transform: found 'reverse', expected one of none"):
        task_of(SimpleNamespace(input_transform="reverse"))
