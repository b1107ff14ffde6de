"""Files keep what a certificate says beyond steps, closes and splits: nodes that bound again, and lines above a curve."""

import numpy as np
from laws.networks import random_network

from verifier.certificate import Certificate, Close, Group, ProofNode, Relaxation, Split
from verifier.check import read_certificate, write_certificate
from verifier.formula import at_least
from verifier.query import Query
from verifier.region import Box


def test_rebound_and_upper_slopes_come_back(tmp_path):
    network = random_network("mlp", seed=0)
    query = Query(network, Box(np.zeros(3), np.ones(3)), at_least(network.output, 0, 1000))
    relaxation = Relaxation({"v2": np.full((1, 5), 0.5)}, upper_slopes={"v2": np.full((1, 5), 0.25)})
    low, high = ProofNode(closed=(Close(0, relaxation),), rebound=True), ProofNode()
    root = ProofNode(split=Split("v1", 0, 0.0, low, high))
    write_certificate(query, Certificate(network.sha256, query.sha256, (Group((0,), root),)), tmp_path / "c.npz")
    _, certificate = read_certificate(tmp_path / "c.npz", network)
    split = certificate.groups[0].root.split
    assert split is not None
    assert (certificate.groups[0].root.rebound, split.low.rebound, split.high.rebound) == (False, True, False)
    again = split.low.closed[0].relaxation
    assert (again.slopes["v2"] == 0.5).all() and (again.upper_slopes["v2"] == 0.25).all()
