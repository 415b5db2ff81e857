"""A cohort of phantom brains with real anatomy, computed locally: nothing is downloaded.

For each subject, the ICBM152 tissue maps in nilearn's wheel are deformed, gliomas grow in the white matter, and MR
signals follow from the tissues' relaxation times. The layouts are those of FeTS (patients, NIfTI) and iSeg (healthy
brains, Analyze 7.5), so that everything from the readers to the report can be run and taught without the real data.
Results on phantoms say nothing about patients.
"""

from riskft.phantom.cohort import write_cohort
from riskft.phantom.layouts import CohortPaths

__all__ = ["CohortPaths", "write_cohort"]
