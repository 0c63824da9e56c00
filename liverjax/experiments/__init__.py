"""Ablations and sweeps: every variant with every fold and seed, run once, then one table.

Public are `plan_sweep` (what an ablation runs: a `Sweep` of `Trial`s), `run_chains` (its commands), `compare` (its
table), and `load_ablation`.
"""

from liverjax import lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    {
        "ablation": ("Ablation", "load_ablation"),
        "comparison": ("Comparison", "compare"),
        "plan": ("Sweep", "Trial", "plan_sweep"),
        "runner": ("Command", "Failure", "run_chains"),
    },
)
