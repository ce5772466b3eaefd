"""Makes NeMo accept this package's classes: NeMo 3 restores only what stands under its list of allowed prefixes.

    nemo imported already  ->  add our prefix now
    nemo comes later       ->  a finder watches for that one module and adds our prefix when it has run

There is no public way to register a plugin, so this touches one list of NeMo's and nothing else.
Boundary: standard library only; never imports NeMo.
"""

import sys
import warnings
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

NEMO_MODULE = "nemo.core.classes.common"
LIST_NAME = "ALLOWED_TARGET_PREFIXES"
PREFIX = "nemo_duplex."
TESTED_NEMO = "3.0.0"


def allow_restore() -> None:
    """Lets stock NeMo restore the classes of this package, now or as soon as NeMo is imported. Safe to call twice."""
    module = sys.modules.get(NEMO_MODULE)
    if module is not None:
        _add_prefix(module)
    elif not any(isinstance(finder, _NemoFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _NemoFinder())


def _add_prefix(module: ModuleType) -> None:
    prefixes = getattr(module, LIST_NAME, None)
    if not isinstance(prefixes, list):
        warnings.warn(
            f"cannot register nemo_duplex with NeMo: expected a list {NEMO_MODULE}.{LIST_NAME} (as in NeMo {TESTED_NEMO}), "
            f"found {type(prefixes).__name__}. Restoring our .nemo will fail with this NeMo: install nemo_toolkit=={TESTED_NEMO}",
            RuntimeWarning,
            stacklevel=2,
        )
    elif PREFIX not in prefixes:
        prefixes.append(PREFIX)


class _NemoFinder(MetaPathFinder):
    """Finds one module, through the finders that would have found it anyway, and runs `_add_prefix` after it."""

    def find_spec(self, fullname, path=None, target=None) -> ModuleSpec | None:
        if fullname != NEMO_MODULE:
            return None
        found = (finder.find_spec(fullname, path, target) for finder in sys.meta_path if finder is not self)
        spec = next((spec for spec in found if spec is not None), None)
        return spec and _registering_after(spec)


def _registering_after(spec: ModuleSpec) -> ModuleSpec:
    """The same spec, whose loader adds our prefix once it has run this very module."""
    run = spec.loader.exec_module

    def exec_module(module: ModuleType) -> None:
        run(module)
        if module.__name__ == NEMO_MODULE:
            _add_prefix(module)

    spec.loader.exec_module = exec_module
    return spec
