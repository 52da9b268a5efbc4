"""MusicVAEPreTrainedModel: how a model is loaded, and how its weights start."""

import math
import os
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers import initialization as init

from .configuration_musicvae import MusicVAEConfig


class PretrainedModelError(ValueError):
    """A model folder or repository that is not a whole MusicVAE."""


class MusicVAEPreTrainedModel(PreTrainedModel):
    config_class = MusicVAEConfig
    base_model_prefix = "musicvae"
    main_input_name = "piano_roll"
    # Older checkpoints have none.
    _keys_to_ignore_on_load_missing = [r"^(attribute_vectors|latent_mean|latent_scale)$"]
    # Where a model is trained on, on other drums.
    _keys_to_ignore_on_load_unexpected = [r"^(style_means|style_scales)$"]

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
        random weights or a default config.

        Args:
            pretrained_model_name_or_path: a folder or the name of a repository on the Hub.
            config: instead of its own: a config, or a folder or repository that has one.
            ignore_mismatched_sizes: whether tensors start anew whose shapes are not those that the
                config asks for.
            output_loading_info: whether to return what transformers tells of loading as well.
            **kwargs: see `PreTrainedModel.from_pretrained`.

        Raises:
            PretrainedModelError: there is no config.json of a MusicVAE, or the weights are damaged
                or belong to another config.
            OSError: there is no such repository, or not for this token; there are no weights; or
                config.json is no JSON.
        """
        if not isinstance(config, PreTrainedConfig):
            place = pretrained_model_name_or_path if config is None else config
            cls.check_config_file(place, **kwargs)
        try:
            model, loading_info = super().from_pretrained(
                pretrained_model_name_or_path,
                *model_args,
                config=config,
                ignore_mismatched_sizes=True,  # checked below
                output_loading_info=True,
                **kwargs,
            )
        except SafetensorError as error:
            raise PretrainedModelError(
                f"{pretrained_model_name_or_path}: found damaged weights ({error}), expected a "
                "whole safetensors file"
            ) from error
        cls._check_weights(pretrained_model_name_or_path, loading_info, ignore_mismatched_sizes)
        return (model, loading_info) if output_loading_info else model

    @classmethod
    def check_config_file(cls, place: str | os.PathLike, **kwargs: Any) -> None:
        """Refuses another model's config.json, which transformers reads with a warning, and its
        absence, which stands for all defaults there.

        Args:
            place: a folder or the name of a repository on the Hub.
            **kwargs: those of `from_pretrained`.

        Raises:
            PretrainedModelError: there is no config.json, or not that of a MusicVAE.
        """
        names = ("cache_dir", "force_download", "local_files_only", "proxies", "revision")
        names += ("subfolder", "token")
        where = {name: kwargs[name] for name in names if name in kwargs}
        config, _ = cls.config_class.get_config_dict(place, **where)
        expected = cls.config_class.model_type
        model_type = config.get("model_type") if isinstance(config, dict) else None
        if model_type != expected:
            found = f"a config.json of model_type {model_type!r}" if config else "no config.json"
            raise PretrainedModelError(f"{place}: found {found}, expected one of {expected!r}")

    @staticmethod
    def _check_weights(
        place: str | os.PathLike | None,
        loading_info: dict[str, Any],
        ignore_mismatched_sizes: bool,
    ) -> None:
        """Refuses any but all the weights that the config asks for."""
        misfits = [f"no {name}" for name in sorted(loading_info["missing_keys"])]
        misfits += [f"an unknown {name}" for name in sorted(loading_info["unexpected_keys"])]
        if not ignore_mismatched_sizes:
            misfits += [
                f"{name} of shape {tuple(found)} instead of {tuple(expected)}"
                for name, found, expected in sorted(loading_info["mismatched_keys"])
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
