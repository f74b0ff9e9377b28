"""Builds the one compiled unit; everything else is in pyproject.toml.

JOBCLOUD_DEBUG=1 builds it with bounds checks and an annotated listing.
"""

import os

from Cython.Build import cythonize
from setuptools import Extension, setup

debug = os.environ.get("JOBCLOUD_DEBUG") == "1"
setup(
    ext_modules=cythonize(
        [Extension("jobcloud._match", ["src/jobcloud/_match.pyx"], extra_compile_args=["-O1" if debug else "-O3"])],
        language_level=3,
        annotate=debug,
        force=debug,
        compiler_directives={
            "boundscheck": debug,
            "wraparound": False,
            "initializedcheck": debug,
            "cdivision": not debug,
            "embedsignature": True,
        },
    )
)
