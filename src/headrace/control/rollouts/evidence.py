"""The sequential test: whether more of a canary's requests are out of their limit than may be.

Of each request it is seen whether it is out of a limit (failed; slow). The hypothesis that is held until there is
enough against it: whatever came before, a request is out of its limit with a probability of at most ``bound``. The
evidence against it is a mixture of likelihood ratios, one for each of `ODDS_RATIOS` that the canary may be worse by.
Each of them has, from one request to the next, an expectation of at most itself while the hypothesis holds: so the
mixture is a test supermartingale (an e-process), which ever reaches 1/α with a probability of at most α (Ville's
inequality). *Ever*: it may be looked at after each request, as often and for as long as one likes, uncorrected.

Sources: H. Robbins, "Statistical methods related to the law of the iterated logarithm", Ann. Math. Statist. 41 (1970),
for mixtures; R. Johari, P. Koomen, L. Pekelis, D. Walsh, "Always valid inference: continuous monitoring of A/B tests",
Operations Research 70 (2022), for their use (the mSPRT); A. Ramdas, P. Grünwald, V. Vovk, G. Shafer, "Game-theoretic
statistics and safe anytime-valid inference", Statistical Science 38 (2023), for hypotheses that are composite.
"""

from __future__ import annotations

import math

ODDS_RATIOS = tuple(2 ** (step / 2) for step in range(1, 15))
"""How much worse the odds of the alternatives are than those of the bound: from 1.4 times to 128 times, evenly in their
logarithm, all of the same weight. Finely enough: between two of them little is lost, and there are few to share the
weight."""


def log_evidence(bad: int, trials: int, bound: float) -> float:
    """Natural logarithm of the evidence that requests are out of their limit more often than they may.

    With the odds r times those of the bound b, the probability is p = r·b / (1 + (r - 1)·b). So the likelihood ratio
    of p to b after k bad ones of n is r^k / (1 + (r - 1)·b)^n.

    Args:
        bad: Requests out of their limit.
        trials: All requests.
        bound: The largest probability that may be, above 0 and below 1.
    """
    ratios = [bad * math.log(ratio) - trials * math.log1p((ratio - 1.0) * bound) for ratio in ODDS_RATIOS]
    largest = max(ratios)
    return largest + math.log(sum(math.exp(ratio - largest) for ratio in ratios) / len(ratios))
