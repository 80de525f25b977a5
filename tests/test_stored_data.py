"""What is kept outside a process is data: no module of ours reads it with something that would run
code put there.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from tests.test_architecture import ROOMS, ROOT

RUN_WHAT_THEY_READ = {
    *("pickle", "_pickle", "cPickle", "marshal", "shelve", "dbm", "joblib", "dill"),
    *("cloudpickle", "jsonpickle", "torch"),
}
"""Modules whose readers run code that stands in what they read, or can be told to."""
EVALUATING = {"eval", "exec", "compile", "__import__"}
READING_OBJECTS = {"read_pickle", "to_pickle", "read_hdf", "literal_eval"}


YAML = {"parse", "CSafeLoader", "YAMLError", "MarkedYAMLError", "Event", "NodeEvent"}
YAML |= {"AliasEvent", "ScalarEvent", "DocumentStartEvent"}
YAML |= {f"{kind}{end}Event" for kind in ("Mapping", "Sequence") for end in ("Start", "End")}
"""What of `yaml` only splits a text into events; the rest makes objects of what stands in it."""


def found_in(source: str) -> Iterator[str]:
    """Yield what a source has that reads objects or code."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.ImportFrom(module="yaml") | ast.Import(names=[ast.alias("yaml", str())]):
                yield "yaml by another name"
            case ast.Import(names=names):
                yield from (n.name for n in names if n.name.split(".")[0] in RUN_WHAT_THEY_READ)
            case ast.Attribute(value=ast.Name("yaml"), attr=attr) if attr not in YAML:
                yield f"yaml.{attr}"
            case ast.ImportFrom(module=str(module), names=names):
                if module.split(".")[0] in RUN_WHAT_THEY_READ:
                    yield module
                yield from (n.name for n in names if n.name in READING_OBJECTS)
            case ast.Call(func=ast.Name(id=name)) if name in EVALUATING:
                yield name
            case ast.Call(func=ast.Attribute(attr=name)) if name in READING_OBJECTS:
                yield name
            case ast.keyword(arg="allow_pickle", value=value):
                if not (isinstance(value, ast.Constant) and value.value is False):
                    yield "allow_pickle"
            case ast.Constant(value=str(text)) if "cache.backends" in text:
                # every cache of Django's but the one that keeps nothing stores pickles
                if not text.endswith("dummy.DummyCache"):
                    yield text


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from shelve import open",
        "import yaml\nyaml.load(x)",
        "import yaml\nyaml.full_load(x)",
        "from yaml import load",
        "import yaml as y",
        "eval(stored)",
        "exec(stored)",
        "np.load(path, allow_pickle=True)",
        "np.load(path, allow_pickle=anything)",
        "import joblib as j",
        "pd.read_pickle(path)",
        '{"BACKEND": "django.core.cache.backends.redis.RedisCache"}',
        '{"BACKEND": "django.core.cache.backends.db.DatabaseCache"}',
    ],
)
def test_what_would_run_stored_code_is_found(source: str) -> None:
    assert list(found_in(source))


@pytest.mark.parametrize(
    "source",
    [
        "store.eval(script, 1, key)",
        "re.compile('x')",
        "np.load(p, allow_pickle=False)",
        "import yaml\nyaml.parse(x, Loader=yaml.CSafeLoader)",
    ],
)
def test_what_reads_data_passes(source: str) -> None:
    assert list(found_in(source)) == []


def test_no_module_of_ours_runs_what_it_reads() -> None:
    found = {
        str(path.relative_to(ROOT)): wrong
        for room in (*ROOMS, "bench")
        for path in (ROOT / room).rglob("*.py")
        if (wrong := list(found_in(path.read_text())))
    }
    assert found == {}
