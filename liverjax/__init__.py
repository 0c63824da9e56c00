"""liverjax: liver and liver-tumour segmentation in CT and MRI with three orthogonal U-nets."""

__version__ = "0.1.0"
