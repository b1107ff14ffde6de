"""Replay a certificate and say whether it proves its query; see `verifier.certificate` for what is replayed."""

import time
from dataclasses import dataclass

from verifier.certificate import Certificate, Group
from verifier.check.boxes import first_boxes
from verifier.check.choices import Rejected, index, require
from verifier.check.exact import OutOfRange, assert_ieee_arithmetic
from verifier.check.float_model import prepare_floats
from verifier.check.masks import beaten_mask
from verifier.check.place import Progress
from verifier.check.tree import replay_group, replay_prelude
from verifier.errors import VerifierError
from verifier.network import mask_nodes
from verifier.query import Query
from verifier.region import outer_bounds


@dataclass(frozen=True)
class CheckResult:
    """Whether a certificate proves its query; if not, the first failure and its place.

    place: the group and the way from its root, such as `group 0, low high`; counts are of what was replayed; exact: how many
    of the passes float64 left undecided, so that exact arithmetic decided them.
    """

    accepted: bool
    reason: str | None
    place: str | None
    disjuncts: int
    steps: int
    splits: int
    closes: int
    exact: int
    seconds: float


def check(query: Query, certificate: Certificate) -> CheckResult:
    """Whether the certificate proves that no input of the query's region satisfies its assertion.

    What is accepted holds in real arithmetic over the stored weights: every rounding error is charged, and a pass whose
    margin is within them is repeated exactly where the operators allow it; a softmax gives what is masked the share 0, as
    floats do, and scores must be small against their mask over the whole region. A certificate that proves nothing is a result
    with the reason, not an exception. Raises BadNetwork for a network that no certificate can speak about.
    """
    if not __debug__:
        raise VerifierError("python -O drops the kernel's own assertions, which its answer rests on; run without -O")
    assert_ieee_arithmetic()
    began, progress, reason = time.perf_counter(), Progress(), None
    try:
        _check_header(query, certificate)
        _check_masks(query)
        known = replay_prelude(query, certificate.prelude, progress)
        for number, group in enumerate(certificate.groups):
            progress.group, progress.at = number, None
            replay_group(query, group, progress, known)
    except Rejected as rejection:
        reason = str(rejection)
    except OutOfRange as error:
        reason = f"numbers are out of range: {error}"
    return CheckResult(
        accepted=reason is None,
        reason=reason,
        place=None if reason is None else progress.place,
        disjuncts=len(query.disjuncts),
        steps=progress.steps,
        splits=progress.splits,
        closes=progress.closes,
        exact=progress.exact,
        seconds=time.perf_counter() - began,
    )


def _check_header(query: Query, certificate: Certificate) -> None:
    require(isinstance(certificate, Certificate), f"a certificate was expected, got {type(certificate).__name__}")
    require(certificate.network_sha256 == query.network.sha256, "it was made for another network")
    require(certificate.query_sha256 == query.sha256, "it was made for another query")
    covered: set[int] = set()
    for group in certificate.groups:
        require(isinstance(group, Group) and len(group.disjuncts) > 0, "a group has no disjuncts")
        covered |= {index(d, len(query.disjuncts), "disjunct") for d in group.disjuncts}
    missing = set(range(len(query.disjuncts))) - covered
    if missing:
        raise Rejected(f"no group covers disjunct {min(missing)}")


def _check_masks(query: Query) -> None:
    if mask_nodes(query.network):
        boxes = first_boxes(prepare_floats(query.network), *outer_bounds(query.region), ())
        value = beaten_mask(query.network, {name: (low[0], high[0]) for name, (low, high) in boxes.sides.items()})
        require(value is None, f"what {value!r} is computed from may be as large as a mask")
