"""The search methods: one module each, one line each here."""

from . import single

METHODS = {"single": single.METHOD}
