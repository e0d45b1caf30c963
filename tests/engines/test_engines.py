"""Each engine is whole, and nothing outside icm_hpc/engines names one."""

import ast
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest

import icm_hpc
from icm_hpc.config import loading
from icm_hpc.config.place import ServerConfig
from icm_hpc.engines import DEFAULT, ENGINES, inherited, start_of
from icm_hpc.engines.engine import Engine
from icm_hpc.errors import ConfigError

PACKAGE = Path(icm_hpc.__file__).parent
SHARED = {"engine", "inherited", "options"}  # modules of icm_hpc.engines that belong to no engine
# Of exports, openai is a format of files.
APART = {PACKAGE / "engines", PACKAGE / "exports"}
OUTSIDE = sorted(path for path in PACKAGE.rglob("*.py") if APART.isdisjoint(path.parents))


@pytest.mark.parametrize("engine", ENGINES.values(), ids=ENGINES)
def test_an_engine_can_do_all_that_another_of_its_abilities_needs(engine: Engine) -> None:
    assert all(hasattr(engine, field.name) for field in fields(Engine))
    assert engine.start or engine.default_url or engine.url_variable, "nobody could run it, or say where it runs"
    assert engine.labels is None or engine.tokens, "labels are asked for by the ids of their tokens"
    assert engine.start is None or engine.models, "a server of ours is asked how long its context is"
    assert not engine.is_checked or (engine.labels and engine.models), "checks are of these"
    assert {"port", "host"} <= {*engine.options.settings, *engine.options.reasons}
    assert engine.completions.base_url("http://host:1/v1/").rstrip("/") == engine.completions.base_url(
        "http://host:1/v1"
    )


def test_the_default_engine_is_one_and_is_started() -> None:
    assert loading.load(["model=smol"]).model.engine == DEFAULT
    assert start_of(DEFAULT) is ENGINES[DEFAULT].start


def test_an_engine_that_others_run_is_not_started() -> None:
    others = [name for name, engine in ENGINES.items() if engine.start is None]
    assert others
    for name in others:
        with pytest.raises(ConfigError, match=f"engine={name} cannot be started here: set server.url"):
            start_of(name)


def test_no_engine_inherits_a_key_or_a_url_of_the_users_own_servers() -> None:
    names = {name for engine in ENGINES.values() for name in (engine.key_variable, engine.url_variable) if name}
    assert inherited.environment(dict.fromkeys(names, "x")) == {}
    assert ServerConfig().url is None


@pytest.mark.parametrize("path", OUTSIDE, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_module_outside_the_engines_names_one(path: Path) -> None:
    tree = ast.parse(path.read_text())
    assert list(_named(tree)) == []
    assert list(_imported(tree)) == []


def _named(tree: ast.AST) -> Iterator[str]:
    """Yield each place where the name of an engine decides something: a comparison, a case, a key."""
    for node in ast.walk(tree):
        decides = isinstance(node, (ast.Compare, ast.MatchValue, ast.Subscript))
        inside = node.keys if isinstance(node, ast.Dict) else [node] if decides else []
        for part in filter(None, inside):
            for leaf in ast.walk(part):
                if isinstance(leaf, ast.Constant) and leaf.value in ENGINES:
                    yield f"line {leaf.lineno}: {leaf.value!r}"


def _imported(tree: ast.AST) -> Iterator[str]:
    """Yield each import of the module of one engine."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.ImportFrom) or "engines" not in (node.module or "").split("."):
            continue
        of = node.module.split("engines")[1].strip(".") if node.module else ""
        modules = (
            {of} if of else {alias.name for alias in node.names if (PACKAGE / "engines" / f"{alias.name}.py").is_file()}
        )
        yield from (f"line {node.lineno}: {name}" for name in sorted(modules - SHARED))
