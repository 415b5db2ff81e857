"""A cohort of phantom brains on real anatomy, made on this machine: nothing is downloaded.

The ICBM152 tissue maps that nilearn's wheel ships are deformed anew for each subject, gliomas are grown in the white
matter, and MR signals are computed from the relaxation times of the tissues. The cohort comes in the layouts of FeTS
(patients, NIfTI) and iSeg (healthy brains, Analyze 7.5), so that everything from the readers to the report can be run
and taught without the real data. It is no substitute for them: results on it say nothing about patients.
"""

from riskft.phantom.cohort import write_cohort
from riskft.phantom.layouts import CohortPaths

__all__ = ["CohortPaths", "write_cohort"]
