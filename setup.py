"""Builds the three Cython kernels; everything else about the package is in pyproject.toml.

DSFAST_DEBUG=1 turns Cython's safety checks and C assertions back on. Nothing is translated to C for an sdist.
"""

import os

from Cython.Build import build_ext
from Cython.Distutils import Extension
from setuptools import setup

KERNELS = ("dag", "frame", "queue")
DEBUG = os.environ.get("DSFAST_DEBUG") == "1"

DIRECTIVES = {
    "language_level": 3,
    "boundscheck": DEBUG,
    "wraparound": False,
    "initializedcheck": DEBUG,
    "overflowcheck": DEBUG,
    "cdivision": not DEBUG,
    "embedsignature": True,
}


def kernel(name: str) -> Extension:
    return Extension(
        f"dsfast._core.{name}",
        [f"dsfast/_core/{name}.pyx"],
        cython_directives=DIRECTIVES,
        cython_c_in_temp=True,
        extra_compile_args=["-O0", "-g", "-UNDEBUG"] if DEBUG else ["-O3", "-g0"],
    )


setup(ext_modules=[kernel(name) for name in KERNELS], cmdclass={"build_ext": build_ext})
