"""`python -m verifier`: re-check certificates without any solver."""

import argparse
import sys
from collections.abc import Sequence

from verifier import __version__
from verifier.check import check, read_certificate
from verifier.errors import VerifierError
from verifier.formats import read_network
from verifier.query import Query
from verifier.region import constraints, exact_bounds

EXIT_CODES = """exit codes:
  0  the certificate proves its query
  1  it does not
  2  bad usage or a file that cannot be read
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    options = _parser().parse_args(arguments)
    try:
        network = read_network(options.network)
        query, certificate = read_certificate(options.certificate, network)
        result = check(query, certificate)
    except VerifierError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2
    print(f"network   {options.network}, sha256 {network.sha256}")
    print(f"region    {_region_text(query)}")
    print(f"claim     no input of the region satisfies any of {result.disjuncts} conjunctions, query sha256 {query.sha256}")
    print("semantics real arithmetic over the stored weights, checked in exact arithmetic without a solver")
    print(f"replayed  {result.steps} steps, {result.closes} closes, {result.splits} splits in {result.seconds:.2f} s")
    print("accepted" if result.accepted else f"rejected: {result.reason} (at {result.place})")
    return 0 if result.accepted else 1


def _region_text(query: Query) -> str:
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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="verifier",
        description="Decide queries over neural networks; replay the evidence.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"verifier {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    checker = commands.add_parser(
        "check", help="replay a certificate in exact arithmetic, without any solver", epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    checker.add_argument("certificate", help="a certificate file")
    checker.add_argument("--network", required=True, help="the network it speaks about: .onnx, .onnx.gz or .network")
    return parser


if __name__ == "__main__":
    sys.exit(main())
