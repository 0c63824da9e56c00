"""From scans to masks: networks, their fusion, and the way back to the scan.

Segmenter, Devices          a model in memory; ``predict(scan)`` returns a `liverjax.prediction.Prediction`
Cascade                     a liver model, and one of tumours in the box around the liver that it finds; likewise
predict_cases, Extras, Outcome      many cases, from files to files
Networks, fold              the variables of all networks; a network folded for prediction
FusionPlan, Fused, orthomean        how the networks' answers become one
Calibration                 temperatures and fusion weights
clean                       the clean-up of a mask
"""

from liverjax import lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    {
        "calibration": ("Calibration",),
        "cascade": ("Cascade",),
        "devices": ("Devices",),
        "fuse": ("orthomean",),
        "network": ("Networks", "fold"),
        "plan": ("Fused", "FusionPlan"),
        "postprocess": ("clean",),
        "predict": ("Extras", "Outcome", "predict_cases"),
        "segmenter": ("Segmenter",),
    },
)
