"""Reports as single HTML files, and their pictures. Results come in as rows.

evaluation_report      of an evaluation
training_report        of a training run
ablation_report        of an ablation
response_report        of response over time
raters_report          of how raters agree on it
volumetry_report       of volumes
worksheet_report       of SIRT
lesion_filter_report   of a lesion filter
observers_report       of how observers differ
corrections_report     of what correcting takes
learning_curve_report  of a learning curve
insight_report         of what a model sees
Page                   sections, tables and pictures in one file
figures                the pictures, one by one
"""

from liverjax import lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    {
        "evaluation": ("evaluation_report",),
        "training": ("training_report",),
        "ablation": ("ablation_report",),
        "response": ("raters_report", "response_report"),
        "planning": ("volumetry_report", "worksheet_report"),
        "lesions": ("lesion_filter_report",),
        "studies": ("corrections_report", "learning_curve_report", "observers_report"),
        "insight": ("insight_report",),
        "html": ("Page",),
    },
)
