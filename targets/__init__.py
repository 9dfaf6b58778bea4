# SPDX-License-Identifier: Apache-2.0
"""The compile step: a portable bundle and a recipe become a compiled bundle for one target.

One compiler file named as its runtime (compiler.py says what it must have); the other folders are
data: recipes, toolchains, install and flash kits.
"""

from __future__ import annotations

from .compile import CompiledResult, compile_bundle
from .errors import TargetError
from .gate import Verdict
from .recipe import Recipe, load_recipe, recipes

__all__ = [
    "CompiledResult",
    "Recipe",
    "TargetError",
    "Verdict",
    "compile_bundle",
    "load_recipe",
    "recipes",
]
