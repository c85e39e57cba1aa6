"""The provider's functions: small texts that configurations would otherwise take apart with regular expressions."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction
from typing import Any, ClassVar

from provider_shim.framework.function import Function, FunctionError, Parameter
from provider_shim.framework.types import NUMBER, STRING, MapOf, Value
from provider_shim.resources.cloud_config import CloudConfigError, merge, parse, write
from provider_shim.resources.common import LABEL_KEY_PATTERN

_MIB = 1 << 20
_UNITS = {
    "Ki": 1 << 10,
    "Mi": _MIB,
    "Gi": 1 << 30,
    "Ti": 1 << 40,
    "k": 10**3,
    "M": 10**6,
    "G": 10**9,
    "T": 10**12,
}
_QUANTITY = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,9})?)\s*(Ki|Mi|Gi|Ti|k|M|G|T)")


class MemoryInMb(Function):
    name = "memory_in_mb"
    summary = "A quantity of memory as a number for memory_in_mb"
    description = (
        "Turns `512Mi`, `1.5Gi` or `1024M` into the number that `memory_in_mb` takes. Units are those of Kubernetes: "
        "`Ki`, `Mi`, `Gi`, `Ti` are powers of 1024, `k`, `M`, `G`, `T` of 1000. The number counts units of "
        "1024 x 1024 bytes, as hosts do; a quantity that is no whole number of them is refused rather than rounded."
    )
    parameters = (Parameter("quantity", STRING, "Such as `512Mi` or `2Gi`."),)
    returns = NUMBER

    def call(self, arguments: Sequence[Value]) -> Value:
        text: str = arguments[0]
        found = _QUANTITY.fullmatch(text.strip())
        if found is None:
            raise FunctionError(f'"{text}" is not a quantity such as 512Mi, 1.5Gi or 1024M', 0)
        size = Fraction(found[1]) * _UNITS[found[2]] / _MIB
        if size.denominator != 1 or size == 0:
            raise FunctionError(
                f'"{text}" is {float(size):g} times 1024 x 1024 bytes: use a whole number of Mi or Gi', 0
            )
        return int(size)


class LabelSelector(Function):
    name = "label_selector"
    summary = "A label selector as a map of labels"
    description = (
        'Turns `app=web,tier=front` into `{ app = "web", tier = "front" }`, as `labels` of data sources and '
        "`match_labels` take them. An object must have all of them. Only equality can be asked for."
    )
    parameters = (Parameter("selector", STRING, "Pairs `key=value`, separated by commas; may be empty."),)
    returns = MapOf(STRING)

    _VALUE: ClassVar = re.compile(r"([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?")
    _KEY: ClassVar = re.compile(LABEL_KEY_PATTERN)

    def call(self, arguments: Sequence[Value]) -> Value:
        text: str = arguments[0]
        labels: dict[str, str] = {}
        for pair in text.split(",") if text.strip() else ():
            key, separator, value = (part.strip() for part in pair.replace("==", "=", 1).partition("="))
            if not separator or not self._KEY.fullmatch(key) or not self._VALUE.fullmatch(value):
                raise FunctionError(f'"{pair.strip()}" is not a pair key=value of labels', 0)
            if key in labels:
                raise FunctionError(f'"{key}" is selected twice', 0)
            labels[key] = value
        return labels


class CloudInitMerge(Function):
    name = "cloud_init_merge"
    summary = "Several #cloud-config documents as one"
    description = (
        'Merges user data in the `#cloud-config` format, for `metadata["user-data"]`. Later documents win: mappings '
        "are merged key by key, lists are appended, and everything else is replaced. The result begins with "
        "`#cloud-config` and is the same for the same documents. Anchors and aliases of YAML are refused."
    )
    parameters = (Parameter("base", STRING, "A `#cloud-config` document."),)
    variadic = Parameter("more", STRING, "Documents that are laid over it, in turn.")
    returns = STRING

    def call(self, arguments: Sequence[Value]) -> Value:
        merged: dict[str, Any] = {}
        for index, text in enumerate(arguments):
            try:
                merged = merge(merged, parse(text))
            except CloudConfigError as refusal:
                raise FunctionError(str(refusal), index) from None
        return write(merged)


FUNCTIONS: tuple[type[Function], ...] = (CloudInitMerge, LabelSelector, MemoryInMb)
