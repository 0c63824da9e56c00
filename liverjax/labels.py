"""Label ids of every mask file that the library reads or writes, and the regions that are scored.

Regions are nested: tumour is a part of the liver.
"""

BACKGROUND = 0
LIVER = 1
TUMOR = 2

#: Name of each label id, in order of id.
NAMES = ("background", "liver", "tumor")

#: Label ids that make up each scored region.
REGIONS = {"liver": (LIVER, TUMOR), "tumor": (TUMOR,)}
