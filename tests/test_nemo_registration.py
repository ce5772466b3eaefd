"""`import nemo_duplex` is enough for stock NeMo to restore our files, before NeMo or after it."""

import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from parts.stand_in import built

from nemo_duplex import nemo_registration

TESTS, ROOT = Path(__file__).parent, Path(__file__).parents[1]
NEMO_FIRST = """
from nemo.core import ModelPT
from nemo.core.classes.common import UnsafeTargetError
try:
    ModelPT.restore_from(FILE, map_location="cpu")
except UnsafeTargetError as error:
    assert "'nemo_duplex." in str(error), error
else:
    raise AssertionError("restored without nemo_duplex")
import nemo_duplex
"""
DUPLEX_FIRST = """
import nemo_duplex
assert not {"nemo", "torch", "omegaconf"} & set(sys.modules), "import nemo_duplex is not free"
from nemo.core import ModelPT
"""
RESTORE = """
from parts import stand_in
stand_in.load()
nemo_duplex.allow_restore()
from nemo.core.classes.common import ALLOWED_TARGET_PREFIXES
assert ALLOWED_TARGET_PREFIXES.count("nemo_duplex.") == 1
assert type(ModelPT.restore_from(FILE, map_location="cpu")).__name__ == "StandIn"
print("restored")
"""


def test_importing_the_package_is_enough_before_nemo_or_after(tmp_path):
    file = tmp_path / "sound.nemo"
    built(tmp_path).save_to(file)
    start = f"import sys\nsys.path[:0] = [{str(ROOT)!r}, {str(TESTS)!r}]\nFILE = {str(file)!r}\n"
    # at once, because each spends its time importing NeMo
    running = [
        subprocess.Popen([sys.executable, "-c", start + first + RESTORE], stdout=subprocess.PIPE, text=True)
        for first in (NEMO_FIRST, DUPLEX_FIRST)
    ]
    for process in running:
        assert process.communicate(timeout=300)[0].strip().endswith("restored") and process.returncode == 0


def test_a_nemo_without_the_list_is_named():
    with pytest.warns(RuntimeWarning, match=r"expected a list nemo.*\(as in NeMo 3.0.0\), found NoneType"):
        nemo_registration._add_prefix(ModuleType("nemo.core.classes.common"))


def test_other_modules_are_left_to_their_finders():
    assert nemo_registration._NemoFinder().find_spec("nemo.core.classes.modelPT") is None
