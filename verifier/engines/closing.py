"""What subproblems prove with their choices, as certificate data."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from verifier.certificate import Close, Relaxation
from verifier.device import array_of
from verifier.domains.relaxations import pool_choice
from verifier.engines.climbing import acting
from verifier.engines.planes import planes_of, proof_planes
from verifier.engines.problem import Group
from verifier.engines.subproblems import Roots, Subproblems, bounds_of
from verifier.network import Node
from verifier.ops import LeakyRelu, MaxPool


def stored(roots: Roots, subs: Subproblems) -> Subproblems:
    """With slopes rounded to half precision, as a certificate keeps them: any slopes prove something, these need less room."""
    nodes = [roots.network.producers[name] for name in (*roots.sloped.names, *roots.upper_sloped.names)]
    least = [torch.full((roots.network.size(node.output),), _least_half(node)) for node in nodes]
    slopes = subs.slopes.half().to(subs.slopes)
    return replace(subs, slopes=torch.maximum(slopes, torch.cat([slopes.new_zeros(0), *least]).to(slopes)))


def _least_half(node: Node) -> float:
    """The least slope in half precision that a replay allows; -inf where it allows any."""
    if not isinstance(node.op, LeakyRelu):
        return -torch.inf
    half = np.float16(node.op.slope)
    return float(half if float(half) >= node.op.slope else np.nextafter(half, np.float16(np.inf)))


def closes_of(roots: Roots, groups: Sequence[Group], subs: Subproblems) -> Iterator[Close]:
    """The close that each of some subproblems, as `stored`, proves with its choices."""
    below, over = subs.slopes.half().split([roots.sloped.width, roots.upper_sloped.width], dim=-1)
    slopes = {a: array_of(s[:, None]) for a, s in roots.sloped.parts(below).items()}
    slopes.update({name: array_of(choice[:, None]) for name, choice in pool_choices(roots, subs).items()})
    upper_slopes = {a: array_of(s[:, None]) for a, s in roots.upper_sloped.parts(over).items()}
    sides = [(sign * subs.multipliers * side).clamp(min=0) for side, sign in zip(acting(subs), (1.0, -1.0), strict=True)]
    bounds = [{v: (array_of(m[:, None]), m.any(1).tolist()) for v, m in roots.watched.parts(side).items()} for side in sides]
    relations = array_of(subs.relations)
    planes = proof_planes(roots.fans, planes_of(roots.fans, bounds_of(roots, subs), subs.shares, subs.weights))
    for k, tree in enumerate(subs.tree.tolist()):
        group = groups[tree]
        goal = group.goals[0]
        atoms = group.query.disjuncts[goal.disjunct]
        multipliers = np.zeros((1, len(atoms)))
        multipliers[0, [atoms.index(a) for a in group.relations]] = relations[k, : len(group.relations)]
        multipliers[0, atoms.index(goal.atom)] += 1.0
        lower, upper = ({v: m[k] for v, (m, used) in side.items() if used[k]} for side in bounds)
        own, own_upper = ({a: s[k] for a, s in part.items()} for part in (slopes, upper_slopes))
        above = {a: proofs[k] for a, proofs in planes.items()}
        yield Close(goal.disjunct, Relaxation(own, lower, upper, multipliers, own_upper, above))


def pool_choices(roots: Roots, subs: Subproblems) -> dict[str, Tensor]:
    """Which entry stands for each maximum, (count, outputs) by pool."""
    lows, highs = roots.watched.parts(subs.low), roots.watched.parts(subs.high)
    pools = [node for node in roots.network.nodes if isinstance(node.op, MaxPool)]
    return {n.output: pool_choice(n, roots.network, lows[n.inputs[0]], highs[n.inputs[0]]).index for n in pools}
