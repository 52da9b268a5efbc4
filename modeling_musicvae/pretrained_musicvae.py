"""MusicVAEPreTrainedModel: how a model is loaded, and how its weights start."""

import math
import os
import re
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers import initialization as init

from .configuration_musicvae import MusicVAEConfig
from .model_files import (
    PretrainedModelError,
    check_config_size,
    place_arguments,
    weight_shapes,
)


class MusicVAEPreTrainedModel(PreTrainedModel):
    config_class = MusicVAEConfig
    base_model_prefix = "musicvae"
    main_input_name = "piano_roll"
    # Older checkpoints have none.
    _keys_to_ignore_on_load_missing = [
        r"^(attribute_vectors|latent_mean|latent_scale|kernel_centers)$"
    ]
    # Where a model is trained on, on other drums; the last two are of older models.
    _keys_to_ignore_on_load_unexpected = [
        r"^(kernel_centers|style_centers|style_means|style_scales)$"
    ]

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike | None,
        *model_args: Any,
        config: PreTrainedConfig | str | os.PathLike | None = None,
        ignore_mismatched_sizes: bool = False,
        output_loading_info: bool = False,
        **kwargs: Any,
    ) -> "MusicVAEPreTrainedModel | tuple[MusicVAEPreTrainedModel, dict[str, Any]]":
        """Loads a model as transformers does, but raises an error where that would warn and return
        random weights or a default config, and reads weights from safetensors alone.

        Args:
            pretrained_model_name_or_path: a folder or the name of a repository on the Hub.
            config: instead of its own: a config, or a folder or repository that has one.
            ignore_mismatched_sizes: whether tensors start anew whose shapes are not those that the
                config asks for.
            output_loading_info: whether to return what transformers tells of loading as well.
            **kwargs: see `PreTrainedModel.from_pretrained`.

        Raises:
            PretrainedModelError: there is no valid config.json of a MusicVAE, or the weights are
                damaged, belong to another config, or are not all numbers.
            OSError: there is no such repository, or not for this token; there are no weights; or
                config.json is no JSON.
        """
        place = pretrained_model_name_or_path
        checked = config
        if not isinstance(config, PreTrainedConfig):
            checked = cls.check_config_file(place if config is None else config, **kwargs)
        if place is not None:
            cls._check_header(place, checked, ignore_mismatched_sizes, **kwargs)
        model, loading_info = super().from_pretrained(
            place,
            *model_args,
            config=config,
            ignore_mismatched_sizes=True,  # checked before and below
            output_loading_info=True,
            **{"use_safetensors": True} | kwargs,
        )
        cls._check_weights(
            place,
            loading_info["missing_keys"],
            loading_info["unexpected_keys"],
            [] if ignore_mismatched_sizes else loading_info["mismatched_keys"],
        )
        cls._check_numbers(place, model)
        return (model, loading_info) if output_loading_info else model

    @classmethod
    def check_config_file(cls, place: str | os.PathLike, **kwargs: Any) -> MusicVAEConfig:
        """Reads a config.json, but refuses that of another model, which transformers reads with a
        warning, and its absence, which stands for all defaults there.

        Args:
            place: a folder or the name of a repository on the Hub.
            **kwargs: those of `from_pretrained`.

        Raises:
            PretrainedModelError: there is no config.json, or not a valid one of a MusicVAE.
        """
        where = place_arguments(kwargs)
        check_config_size(place, **where)
        try:
            config, _ = cls.config_class.get_config_dict(place, **where)
        except (TypeError, AttributeError, RecursionError):  # JSON, but no object, or too deep
            config = [None]
        expected = cls.config_class.model_type
        model_type = config.get("model_type") if isinstance(config, dict) else None
        if model_type != expected:
            found = (
                f"a config.json of model_type {model_type!r:.80}" if config else "no config.json"
            )
            raise PretrainedModelError(
                f"{place}: found {found}, expected one of model_type {expected!r}"
            )
        own = cls.config_class.__annotations__
        fields = {name: value for name, value in kwargs.items() if name in own}
        try:
            return cls.config_class.from_dict(config | fields)
        except Exception as error:  # of the types of its fields, of their values, of transformers
            *_, reason = str(error).splitlines() or [type(error).__name__]
            raise PretrainedModelError(f"{place}: config.json: {reason.strip():.200}") from error

    @classmethod
    def _check_header(
        cls,
        place: str | os.PathLike,
        config: PreTrainedConfig,
        ignore_mismatched_sizes: bool,
        variant: str | None = None,
        **kwargs: Any,
    ) -> None:
        """Compares the header of the weights with the config, before a model is made of that."""
        found = weight_shapes(place, variant, **place_arguments(kwargs))
        if found is None:
            return
        with torch.device("meta"):
            state_dict = cls(config).state_dict()
        expected = {name: tuple(tensor.shape) for name, tensor in state_dict.items()}
        missing, unexpected = expected.keys() - found, found.keys() - expected.keys()
        for names, patterns in (
            (missing, cls._keys_to_ignore_on_load_missing),
            (unexpected, cls._keys_to_ignore_on_load_unexpected),
        ):
            names -= {name for name in names if any(re.search(each, name) for each in patterns)}
        mismatched = [
            (name, found[name], expected[name])
            for name in expected.keys() & found
            if found[name] != expected[name] and not ignore_mismatched_sizes
        ]
        cls._check_weights(place, missing, unexpected, mismatched)

    @staticmethod
    def _check_numbers(place: str | os.PathLike | None, model: nn.Module) -> None:
        """Refuses weights with which every drum would be hit at every step, or none."""
        for name, tensor in model.state_dict().items():
            if not tensor.is_meta and not tensor.isfinite().all():
                raise PretrainedModelError(f"{place}: {name}: found NaN or inf, expected numbers")

    @staticmethod
    def _check_weights(
        place: str | os.PathLike | None,
        missing: Iterable[str],
        unexpected: Iterable[str],
        mismatched: Iterable[tuple[str, Sequence[int], Sequence[int]]],
    ) -> None:
        """Refuses any but all the weights that the config asks for.

        Args:
            place: of the model.
            missing, unexpected: names of weights.
            mismatched: of each, its name, the shape that was found and that of the config.
        """
        misfits = [f"no {name}" for name in sorted(missing)]
        misfits += [f"an unknown {name:.80}" for name in sorted(unexpected)]
        misfits += [
            f"{name} of shape {tuple(found)} instead of {tuple(expected)}"
            for name, found, expected in sorted(mismatched)
        ]
        if misfits:
            more = f" and {len(misfits) - 3} more" if len(misfits) > 3 else ""
            raise PretrainedModelError(
                f"{place}: found weights with {', '.join(misfits[:3])}{more}, expected those of "
                "the config"
            )

    @torch.no_grad()
    def _init_weights(self, module: nn.Module):
        """Starts weights uniform after Glorot, for an LSTM over its input and recurrent weight
        together, and forget gates open.

        An LSTM's first inputs, hits or a one-hot pattern, are zero almost everywhere. Their
        weights start with the unit variance of an embedding: after Glorot, as in Magenta's models,
        they would be so small that it takes thousands of steps until they matter.
        """
        super()._init_weights(module)
        if isinstance(module, nn.Linear):
            init.xavier_uniform_(module.weight)
        elif isinstance(module, nn.Embedding):
            init.zeros_(module.weight)
        elif hasattr(module, "w_enc"):
            init.xavier_uniform_(module.w_enc)
            init.xavier_uniform_(module.w_dec)
        elif hasattr(module, "attribute_vectors"):
            init.zeros_(module.attribute_vectors)
            init.zeros_(module.latent_mean)
            init.copy_(module.latent_scale, torch.eye(module.config.latent_size))
            if module.config.latent_kernels:
                init.zeros_(module.kernel_centers)
        elif isinstance(module, nn.LSTM):
            size, num_directions = module.hidden_size, 1 + module.bidirectional
            for index, (weight_ih, weight_hh, bias_ih, _) in enumerate(module.all_weights):
                bound = math.sqrt(6 / (weight_ih.shape[1] + 5 * size))
                init.uniform_(weight_ih, -bound, bound)
                init.uniform_(weight_hh, -bound, bound)
                forget_gate = torch.arange(4 * size, device=bias_ih.device) // size == 1
                init.copy_(bias_ih, forget_gate.to(bias_ih.dtype))
                if index < num_directions:
                    num_binary = getattr(module, "binary_size", module.input_size)
                    binary = torch.randn_like(weight_ih[:, :num_binary])
                    init.copy_(weight_ih, torch.cat([binary, weight_ih[:, num_binary:]], 1))
