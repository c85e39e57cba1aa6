"""The provider's functions: what they give, and which argument a refusal is about; over the protocol, too."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from provider_shim.framework.codec import Codec
from provider_shim.framework.function import Function, FunctionError
from provider_shim.framework.types import STRING
from provider_shim.protocol.convert import read_value, write_value
from provider_shim.protocol.messages import message
from provider_shim.protocol.servicer import Servicer
from provider_shim.resources.cloud_config import HEADER, LIMIT
from provider_shim.resources.functions import CloudInitMerge, LabelSelector, MemoryInMb
from provider_shim.resources.provider import FlintlockProvider


def refusal(function: Function, *arguments: str) -> tuple[str, int | None]:
    with pytest.raises(FunctionError) as caught:
        function.call(arguments)
    return caught.value.text, caught.value.argument


@pytest.mark.parametrize(
    ("text", "number"),
    [("512Mi", 512), ("1.5Gi", 1536), ("2 Gi", 2048), ("1Ti", 1_048_576), ("1048576k", 1000), ("2048Ki", 2)],
)
def test_memory_is_read(text: str, number: int) -> None:
    assert MemoryInMb().call([text]) == number


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "is not a quantity"),
        ("512", "is not a quantity"),
        ("-1Gi", "is not a quantity"),
        ("1GB", "is not a quantity"),
        ("1e3Mi", "is not a quantity"),
        ("1" * 99 + "Mi", "is not a quantity"),
        ("1G", "is 953.674 times 1024 x 1024 bytes"),
        ("1Ki", "is 0.000976562 times"),
        ("0Gi", "is 0 times"),
    ],
)
def test_memory_is_never_rounded(text: str, told: str) -> None:
    words, argument = refusal(MemoryInMb(), text)
    assert told in words
    assert argument == 0


def test_selectors_become_labels() -> None:
    select = LabelSelector().call
    assert select(["app=web, example.com/tier = front"]) == {"app": "web", "example.com/tier": "front"}
    assert select(["app==web"]) == {"app": "web"}
    assert select(["empty="]) == {"empty": ""}
    assert select([" "]) == {}


@pytest.mark.parametrize("text", ["app", "app!=web", "app in (a,b)", "=web", "a=b,", "app=web=x", "a=-", "a=b,a=c"])
def test_selectors_that_are_more_than_equality_are_refused(text: str) -> None:
    assert refusal(LabelSelector(), text)[1] == 0


def document(**values: Any) -> str:
    return f"{HEADER}\n{yaml.safe_dump(values)}"


def test_documents_are_laid_over_each_other() -> None:
    base = document(packages=["curl"], ntp={"enabled": True, "servers": ["a"]}, hostname="x")
    merged = CloudInitMerge().call([base, document(packages=["nginx"], ntp={"servers": ["b"]}), document(hostname="y")])
    assert merged.startswith(f"{HEADER}\n")
    assert yaml.safe_load(merged) == {
        "packages": ["curl", "nginx"],
        "ntp": {"enabled": True, "servers": ["a", "b"]},
        "hostname": "y",
    }
    assert CloudInitMerge().call([f"{HEADER}\n"]) == f"{HEADER}\n{{}}\n"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("packages: []", "the first line must be #cloud-config"),
        (f"{HEADER}\n- a\n", "must be a mapping"),
        (f"{HEADER}\na: [\n", "line 3: "),
        (f"{HEADER}\na: &x [1]\nb: *x\n", "line 2: anchors and aliases are not allowed"),
        (f"{HEADER}\na: !!python/object:os.system {{}}\n", "line 2: could not determine a constructor"),
        (f"{HEADER}\na: {'x' * LIMIT}\n", "is over"),
        (f"{HEADER}\na: {'[' * 5000}{']' * 5000}", "is not YAML"),
    ],
)
def test_what_is_no_cloud_config_is_refused_at_its_place(text: str, told: str) -> None:
    words, argument = refusal(CloudInitMerge(), document(a=1), text)
    assert told in words
    assert argument == 1


_VALUES = st.recursive(
    st.integers() | st.booleans() | st.text(st.characters(codec="ascii", categories=["L", "N"]), max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)


@given(st.lists(st.dictionaries(st.sampled_from("abc"), _VALUES, max_size=3), min_size=1, max_size=3))
def test_merging_in_steps_is_merging_at_once(values: list[dict[str, Any]]) -> None:
    merge = CloudInitMerge()
    texts = [document(**each) for each in values]
    stepwise = texts[0]
    for text in texts[1:]:
        stepwise = merge.call([stepwise, text])
    assert yaml.safe_load(merge.call(texts)) == yaml.safe_load(merge.call([stepwise]))


# -- over the protocol -------------------------------------------------------------------------------------------------


def call(name: str, *arguments: str) -> Any:
    response = message("CallFunction.Response")()
    given = [write_value(Codec(STRING), each) for each in arguments]
    Servicer(FlintlockProvider()).handlers()["CallFunction"](
        message("CallFunction.Request")(name=name, arguments=given), response
    )
    return response


def test_functions_are_published_with_their_types() -> None:
    response = message("GetFunctions.Response")()
    Servicer(FlintlockProvider()).handlers()["GetFunctions"](message("GetFunctions.Request")(), response)
    assert set(response.functions) == {"memory_in_mb", "label_selector", "cloud_init_merge"}
    merge = response.functions["cloud_init_merge"]
    assert [each.name for each in merge.parameters] == ["base"]
    assert merge.variadic_parameter.name == "more"
    assert not response.functions["memory_in_mb"].HasField("variadic_parameter")
    assert json.loads(getattr(response.functions["label_selector"], "return").type) == ["map", "string"]


def test_an_answer_and_a_refusal() -> None:
    function = MemoryInMb()
    assert read_value(Codec(function.returns), call("memory_in_mb", "1Gi").result) == 1024
    refused = call("cloud_init_merge", document(a=1), document(b=2), "nonsense").error
    assert (refused.text, refused.function_argument) == ("the first line must be #cloud-config", 2)
    unknown = call("nonsense").error
    assert "no function nonsense" in unknown.text
    assert not unknown.HasField("function_argument")
