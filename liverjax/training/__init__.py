"""Training: `train`, the step as pure functions, and many processes as one run."""

from liverjax import lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    {
        "callback": ("StopTraining",),
        "distributed": ("initialize_distributed", "data_mesh"),
        "logs": ("read_log",),
        "loop": ("train",),
        "losses": ("cross_entropy_loss", "segmentation_loss", "soft_dice_loss"),
        "monitor": ("Progress",),
        "step": ("StepSpec", "TrainState", "init_state", "start_from", "step_spec", "train_step"),
    },
)
