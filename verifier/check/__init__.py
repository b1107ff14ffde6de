"""The trusted kernel: exact replay of counterexamples and certificates. Imports no solver and no torch.

Everything accepted here is true in real arithmetic over the stored weights; the rest of the verifier need not be trusted.
"""

from verifier.check.certificate_check import CheckResult, check
from verifier.check.files import read_certificate, write_certificate
from verifier.check.replay import confirms, replay

__all__ = ["CheckResult", "check", "confirms", "read_certificate", "replay", "write_certificate"]
