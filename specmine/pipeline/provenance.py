"""Where a Spec comes from: hashes, versions, seed, configuration."""

import hashlib
import json
import platform
from collections.abc import Mapping
from importlib import metadata
from typing import Any

import numpy as np

import specmine
import verifier
from specmine.config import Config
from specmine.pipeline.inputs import Inputs
from specmine.stats.evidence import SPLITS
from verifier.ops import ACTIVATION_OPS

LIBRARIES = ("torch", "numpy", "scipy", "z3-solver", "clingo", "onnx")


def provenance(inputs: Inputs, config: Config) -> Mapping[str, Any]:
    """All that another person needs to get the same claims."""
    network, dataset = inputs.network, inputs.dataset
    settings = config.model_dump(mode="json")
    counts = np.bincount(dataset.split, minlength=len(SPLITS))
    return {
        "model": {
            "sha256": network.sha256,
            "input_shape": list(network.input_shape),
            "neurons": sum(network.size(node.output) for node in network.nodes if isinstance(node.op, ACTIVATION_OPS)),
        },
        "data": {
            "name": dataset.name,
            "sha256": dataset.sha256,
            "samples": {name: int(count) for name, count in zip(SPLITS, counts, strict=True)},
            "classes": list(dataset.classes),
            "domain": dataset.domain_source,
            "source": inputs.source,
        },
        "seed": config.seed,
        "configuration": settings,
        "configuration_sha256": hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest(),
        "versions": {
            "specmine": specmine.__version__,
            "verifier": verifier.__version__,
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in LIBRARIES},
        },
        "semantics": "real arithmetic over the stored weights; ties between classes are violations",
    }
