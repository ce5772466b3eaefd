"""Full-duplex speech for NeMo: any text LLM that listens and speaks at the same time.

`import nemo_duplex` costs nothing (no NeMo, no torch) and is all that stock `ModelPT.restore_from` needs to restore
a `.nemo` of this package, whether NeMo was imported before it or comes after.
"""

from nemo_duplex.nemo_registration import allow_restore

__version__ = "0.1.0"

allow_restore()
