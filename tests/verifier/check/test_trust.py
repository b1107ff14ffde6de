import subprocess
import sys


def test_the_kernel_loads_no_solver_and_no_torch() -> None:
    code = "import sys, verifier.check; print(*{name.partition('.')[0] for name in sys.modules})"
    loaded = set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())
    assert not loaded & {"torch", "z3", "highspy", "clingo", "onnx", "cvc5", "specmine"}


def test_the_kernel_shares_no_code_with_the_engines() -> None:
    code = "import sys, verifier.check; print(*(name for name in sys.modules if name.startswith('verifier.')))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    core = {"errors", "ops", "network", "formula", "region", "query", "certificate"}
    outside = {name.split(".")[1] for name in loaded} - core
    assert outside == {"check"}
