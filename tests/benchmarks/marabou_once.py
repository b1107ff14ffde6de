"""Marabou on one query, in a process of its own: marabou_once.py MODEL.onnx QUERY.vnnlib SECONDS prints `answer seconds`.

The seconds are those of its solver, reading the property included, reading the model not.
"""

import sys
import time
import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from maraboupy import Marabou


def main() -> None:
    model, query, limit = sys.argv[1:]
    network = Marabou.read_onnx(model)
    options = Marabou.createOptions(verbosity=0, numWorkers=1, timeoutInSeconds=int(float(limit)))
    began = time.perf_counter()
    answer, _, _ = network.solve(verbose=False, options=options, propertyFilename=query)
    print("\n", answer, time.perf_counter() - began)


if __name__ == "__main__":
    main()
