"""The networks: functional Flax modules that know no planes, files or configs' files."""

from liverjax.models.unet import UNet, build_unet

__all__ = ["UNet", "build_unet"]
