"""`verifier check`: replay certificates, every rounding accounted for, without any solver."""

import argparse
import sys
from typing import TYPE_CHECKING

from verifier.cli.codes import BAD_INPUT, DECIDED, REFUTED
from verifier.errors import BadCertificate

if TYPE_CHECKING:
    from verifier.network import Network
    from verifier.query import Query

COMMAND = "check"
HELP = "replay certificates, every rounding accounted for, without any solver"
DESCRIPTION = (
    "Replay certificates, every rounding accounted for, without any solver: does each prove the query that its file holds?"
)


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("certificates", nargs="+", metavar="CERTIFICATE", help="a certificate file")
    parser.add_argument("--network", required=True, help="the network they speak about: .onnx, .onnx.gz or .network")
    parser.add_argument("--query", metavar="FILE", help="a VNN-LIB file; certificates that prove another query are rejected")


def run(options: argparse.Namespace) -> int:
    from verifier.formats import read_network
    from verifier.formats.vnnlib import read_vnnlib

    network = read_network(options.network)
    print(f"network   {options.network}, sha256 {network.sha256}")
    asked = None if options.query is None else read_vnnlib(options.query, network)
    if asked is not None:
        print(f"query     {options.query}, sha256 {asked.sha256}")
    accepted, unreadable = [], 0
    for path in options.certificates:
        try:
            accepted.append(_check_one(path, network, asked))
        except BadCertificate as error:
            unreadable += 1
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
    if len(options.certificates) > 1:
        unread = f", {unreadable} cannot be read" if unreadable else ""
        print(f"\n{sum(accepted)} of {len(options.certificates)} accepted{unread}")
    return BAD_INPUT if unreadable else DECIDED if all(accepted) else REFUTED


def _check_one(path: str, network: "Network", asked: "Query | None") -> bool:
    from verifier.check import check, read_certificate
    from verifier.query import emptied_input

    query, certificate = read_certificate(path, network)
    if asked is not None and asked.sha256 != query.sha256:
        print(f"file      {path}")
        print(f"region    {_region_text(query)}")
        print(f"rejected: its query is another one, sha256 {query.sha256} and not {asked.sha256}; not replayed")
        return False
    result = check(query, certificate)
    print(f"file      {path}")
    print(f"region    {_region_text(query)}")
    print(f"claim     no input of the region satisfies any of {result.disjuncts} conjunctions, query sha256 {query.sha256}")
    entry = emptied_input(query)
    if entry is not None:
        print(f"vacuous   no input satisfies its bounds: those of input entry {entry} contradict each other")
    print("semantics real arithmetic over the stored weights, checked without a solver, every rounding accounted for")
    print(f"replayed  {result.steps} steps, {result.closes} closes, {result.splits} splits in {result.seconds:.2f} s")
    print("accepted" if result.accepted else f"rejected: {result.reason} (at {result.place})")
    return result.accepted


def _region_text(query: "Query") -> str:
    from verifier.region import constraints, exact_bounds

    lower, upper = exact_bounds(query.region)
    sides = {(float(lo), float(hi)) for lo, hi in zip(lower, upper, strict=True)}
    if len(sides) == 1:
        (low, high) = sides.pop()
        box = f"[{low!r}, {high!r}]^{len(lower)}"
    else:
        widest = max(float(hi - lo) for lo, hi in zip(lower, upper, strict=True))
        box = f"a box of {len(lower)} inputs, at most {widest:.6g} wide"
    cuts = len(constraints(query.region))
    return f"{box}, cut by {cuts} linear constraints" if cuts else box
