"""The shares of labels in a task, estimated from what the model says of each example by itself."""

import numpy as np

from .energy import Values

PSEUDO_COUNT = 1.0  # examples of each label that are added, so that no share is 0 or 1


def estimated(scores: Values) -> tuple[float, ...]:
    """Return the mean probability of each label over examples: their sum is 1, and none is 0.

    `scores` f64[N, L], nats: log P(word | example) - log P(word | premise) (contextual calibration, Zhao et al. 2021,
    arXiv 2102.09690). The less a model knows, the nearer the result is to equal shares. Counts of the most probable labels
    and the EM estimate of Saerens et al. 2002 are not so near, and magnify an error of the premise (docs/results.md).
    """
    probabilities = np.exp(scores - np.logaddexp.reduce(scores, axis=1)[:, None])
    found = probabilities.sum(axis=0) + PSEUDO_COUNT
    return tuple((found / found.sum()).tolist())
