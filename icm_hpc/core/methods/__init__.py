"""The search methods: one line each."""

from . import baselines, blocks, single

METHODS = {
    "blocks": blocks.METHOD,
    "single": single.METHOD,
    "zero_shot": baselines.ZERO_SHOT,
    "random": baselines.RANDOM,
    "bootstrap": baselines.BOOTSTRAP,
}
