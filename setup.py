"""Builds the three compiled units; everything else is in pyproject.toml.

JOBCLOUD_DEBUG=1 builds them with bounds checks and annotated listings. Each kind of build has C files of its own.
"""

import os

from Cython.Build import cythonize
from setuptools import Extension, setup

debug = os.environ.get("JOBCLOUD_DEBUG") == "1"
flags = ["-O1"] if debug else ["-O3", "-g0"]  # symbols for a debugger take four times the space of the code
setup(
    options={"build_ext": {"parallel": 3}},
    ext_modules=cythonize(
        [
            Extension(
                "jobcloud._match",
                ["src/jobcloud/_match.pyx"],
                depends=["src/jobcloud/_match_score.h"],
                include_dirs=["src/jobcloud"],
                extra_compile_args=flags,
            ),
            Extension("jobcloud.match._placer", ["src/jobcloud/match/_placer.pyx"], extra_compile_args=flags),
            Extension("jobcloud.planning._pack", ["src/jobcloud/planning/_pack.pyx"], extra_compile_args=flags),
        ],
        language_level=3,
        annotate=debug,
        build_dir="build/cython-debug" if debug else "build/cython",
        compiler_directives={
            "boundscheck": debug,
            "wraparound": False,
            "initializedcheck": debug,
            "cdivision": not debug,
            "embedsignature": True,
            "autotestdict": False,  # stubtest would ask for it in the stub
        },
    ),
)
