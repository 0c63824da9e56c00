"""Checkpoints that verify, and the manifest of a run."""

from liverjax import lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    {
        "manifest": ("environment", "read_manifest", "write_manifest"),
        "runs": ("Checkpoints", "restore_parameters"),
    },
)
