"""Float64 arithmetic with every rounding error charged: the lemmas that the fast replay rests on.

Let u = 2**-53 and eta = 2**-1075, half the smallest positive float64. Hardware rounds to nearest (asserted before each check).

1. One sum, product, quotient or fused multiply-add errs by at most u |result| + eta (a sum never underflows). The next float
   beyond a computed result r is therefore a true bound of the exact one. It is no further away than 2 u |r|, or 2 eta, so that
   what is computed as r - (2 u |r| + FLOOR) is a true bound as well, and fast to compute: `below`, `above`.
2. A computed dot product of k terms, in whatever order and with whatever blocking, fused or not, errs by at most
   gamma_k |a| @ |b| + k eta (1 + gamma_k) with gamma_k = k u / (1 - k u) (Higham, Accuracy and Stability of Numerical
   Algorithms, section 3.1). So does each entry of a matrix product by the inner-product method, which is what BLAS does
   (OpenBLAS and MKL use no Strassen for float64), and a sum over window positions of such products.
3. So where coefficients A meet y = W x + b, whatever float row A' was computed for A W: if m >= |x| then
   A y = A W x + A b >= A' x + A b - gamma_k |A| (|W| m) - k eta (1 + gamma_k) sum(m).
   All that a step loses is at most |A| @ e + t, with a vector e and a number t that depend on the node alone.
4. An activation y = f(z) above z = W x + b, in one go. Its lines have slopes l below and h above, both in [0, 1], and an offset
   t >= 0 above: for a = p + n, split by sign, a f(z) >= (a l + n (h - l)) z + n t. The coefficients A' of z, computed as
   a l + n (h - l) with h - l rounded, err by at most 5 u |a| + 3 eta, whatever the signs. So what is lost is
   - at z, at most |a| @ (5 u max|z|), and 3 eta sum(max|z|);
   - for A' W by lemma 3, at most (1 + 5 u) |a| @ (gamma_k |W| max|x|), and its underflow;
   - for A' b, computed as a @ (l b) + n @ ((h - l) b), at most |a| @ (9 u |b|) beyond the two products' own errors, and
     3 eta sum|b|;
   - for those products, with t in the second: lemma 2 with the magnitudes t + 2 |b|.
   A charge |a| @ e is a @ e - 2 n @ e, so that it is taken off by the same two products, whose errors grow by 3 gamma_k e.
5. A plane p v + q above an activation max(0, W v + b), with |p| <= |W| entry by entry and |v - c| <= r. The numbers that q must
   reach, -p c + |p| r and b + (W - p) c + |W - p| r, are dot products of at most 2 n terms and one sum or two, in which W - p
   is rounded, to an error of u |W|: all in all they err by at most gamma_(2n + 8) (|b| + |W| (|c| + r)), beside underflow.
   Where a part n <= 0 of a coefficient a goes to the plane and a - n stays, that is rounded to an error of u |a|, where n
   is not 0: it loses that times |y|.

`gamma` is four times what the lemmas ask. The excess pays for the rounding of e and of |A| @ e, which is of relative size
k u, far below 1. Underflow is paid for apart: FLOOR, added to each entry of an e before coefficients multiply it, is 2**115 eta
and so more than e can have lost; TINY, 2**75 eta for each term and unit of magnitude, is more than t.
Numbers beyond float64 become infinities or NaN, which pass through sums and products; a bound that is not finite says nothing.
"""

import numpy as np

from verifier.ops import Array

UNIT = 2.0**-53
TINY = 2.0**-1000
FLOOR = 2.0**-960
MAX_TERMS = 2**24


def gamma(terms: int) -> float:
    """A relative error above that of any float64 dot product of so many terms, with room for the charge's own rounding."""
    assert 0 <= terms < MAX_TERMS
    return 4.0 * (terms + 8) * UNIT


def underflow(terms: int, magnitude: Array) -> float:
    """More than all that underflow takes from one step with so many terms onto entries of these magnitudes."""
    return TINY * (1.0 + terms) * (1.0 + float(magnitude.sum()))


def below(result: Array) -> Array:
    """A lower bound of what one operation on finite numbers computed as `result`; -inf where that is not finite."""
    with np.errstate(invalid="ignore", over="ignore"):
        # sound: lemma 1. An infinite or undefined result may come from an earlier overflow, so nothing is known of it: the
        # difference is then -inf or NaN, which fmax passes over.
        return np.fmax(result - (np.abs(result) * (2 * UNIT) + FLOOR), -np.inf)


def above(result: Array) -> Array:
    """An upper bound of what one operation on finite numbers computed as `result`; inf where that is not finite."""
    with np.errstate(invalid="ignore", over="ignore"):
        return np.fmin(result + (np.abs(result) * (2 * UNIT) + FLOOR), np.inf)
