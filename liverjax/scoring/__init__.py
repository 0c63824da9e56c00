"""Scores of masks, without jax: on plain arrays with voxel sizes in mm, or on whole folders of files.

`overlap`, `surface`, `miccai`, `lesions`, `lits` and `statistics` work on arrays and numbers and can be used
alone; `cohort.evaluate` puts them together. Every definition is written down in docs/metrics.md.
"""
