"""The networks: functional Flax modules that know neither views nor files."""

from liverjax.models.unet import UNet, build_unet

__all__ = ["UNet", "build_unet"]
