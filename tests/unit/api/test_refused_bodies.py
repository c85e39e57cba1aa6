"""Nothing of a refused body stays until the garbage collector comes: it comes seldom, and bodies are large."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest
from unit.api.rig import Rig

BODIES = {
    "nothing": b"",
    "no JSON": b"[" * 1000,
    "nested too deeply": b"[" * 100_000,
    "a number too long": b'{"spec": {"max_vcpu": ' + b"9" * 5000 + b"}}",
    "an unknown field": b'{"a": 0}',
    "a wrong type": b'{"spec": {"max_vcpu": "3"}}',
}


@pytest.fixture
def left() -> Iterator[list[object]]:
    """What only the collector would have freed."""
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    yield gc.garbage
    gc.set_debug(0)
    gc.garbage.clear()
    gc.enable()


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
def test_a_refusal_leaves_no_error_behind(api: Rig, left: list[object], body: bytes) -> None:
    for method, path in (("PUT", "/namespaces/demo"), ("POST", "/apply")):
        answer = api.request(method, path, data=body, headers={"Content-Type": "application/json"})
        assert answer.status_code == 422
    gc.collect()
    assert [each for each in left if isinstance(each, BaseException)] == []
