"""MusicVAE over drums: configuration and model."""

from transformers import AutoConfig, AutoModel

from .configuration_musicvae import MusicVAEConfig
from .latent_space import spherical_interpolation
from .magenta_variables import load_magenta_variables
from .modeling_musicvae import MusicVAEModel

MusicVAEConfig.register_for_auto_class()
MusicVAEModel.register_for_auto_class("AutoModel")
AutoConfig.register("musicvae", MusicVAEConfig, exist_ok=True)
AutoModel.register(MusicVAEConfig, MusicVAEModel, exist_ok=True)

__all__ = [
    "MusicVAEConfig",
    "MusicVAEModel",
    "load_magenta_variables",
    "spherical_interpolation",
]
