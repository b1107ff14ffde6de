"""The trusted kernel: replay of counterexamples and certificates, exactly or with every error charged. No solver, no torch.

Everything accepted here is true in real arithmetic over the stored weights; the rest of the verifier need not be trusted.
"""

from verifier.check.certificate_check import CheckResult, check
from verifier.check.files import read_certificate, write_certificate
from verifier.check.replay import confirms, enclose, replay

__all__ = ["CheckResult", "check", "confirms", "enclose", "read_certificate", "replay", "write_certificate"]
