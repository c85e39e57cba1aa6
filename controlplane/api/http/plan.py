"""How a request becomes the arguments of a handler, worked out once for each route when the application is made.

A plan reads only what it is sure of. Whatever is not as expected, be it wrong or merely unusual, raises UnsureError
before anything was done, and the framework, which reads the same declarations, says what there is to say of it.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from inspect import iscoroutinefunction
from typing import Any, Protocol, cast, get_origin

from fastapi.dependencies.models import Dependant
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from starlette.datastructures import QueryParams
from starlette.requests import Request

JSON = b"application/json"


class UnsureError(Exception):
    """The framework has to look at this request."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A request, taken apart. `headers` has the first of those of one name."""

    request: Request
    path: Mapping[str, str]
    query: QueryParams | None
    headers: Mapping[bytes, bytes]
    body: bytes


class _Parameter(Protocol):
    """What is used of a parameter as the framework describes it."""

    name: str

    @property
    def alias(self) -> str: ...
    @property
    def field_info(self) -> FieldInfo: ...
    def validate(
        self, value: Any, values: dict[str, Any] = ..., *, loc: tuple[int | str, ...] = ...
    ) -> tuple[Any, list[dict[str, Any]]]: ...


Reader = Callable[[Asked], Any]
Arguments = tuple[dict[str, Any], "list[Arguments]"]
"""Of a function, and of those that it depends on."""


class Plan:
    """Reads the arguments of one function, and of what it depends on; then calls them."""

    def __init__(self, dependant: Dependant) -> None:
        """Raises TypeError for declarations that this module does not know."""
        if (
            dependant.cookie_params
            or dependant.websocket_param_name
            or dependant.http_connection_param_name
            or dependant.response_param_name
            or dependant.background_tasks_param_name
            or dependant.security_scopes_param_name
            or not iscoroutinefunction(dependant.call)
        ):
            raise TypeError(f"{dependant.call} is declared in a way that no plan is made of")
        self._call = cast("Callable[..., Coroutine[Any, Any, Any]]", dependant.call)
        self._needs = [(str(inner.name), Plan(inner)) for inner in dependant.dependencies]
        self._readers: list[tuple[str, Reader]] = [
            *((each.name, _of_path(each)) for each in dependant.path_params),
            *((each.name, _of_query(each)) for each in dependant.query_params),
            *((each.name, _of_header(each)) for each in dependant.header_params),
            *((each.name, _of_body(each, dependant.body_params)) for each in dependant.body_params),
        ]
        if dependant.request_param_name:
            self._readers.append((dependant.request_param_name, lambda asked: asked.request))

    def read(self, asked: Asked) -> Arguments:
        """Raises UnsureError."""
        return {name: reader(asked) for name, reader in self._readers}, [plan.read(asked) for _, plan in self._needs]

    async def call(self, arguments: Arguments) -> Any:
        """What the function returns. Raises what it, or what it depends on, raises."""
        values, inner = arguments
        for (name, plan), given in zip(self._needs, inner, strict=True):
            values[name] = await plan.call(given)
        return await self._call(**values)


def _of_path(parameter: _Parameter) -> Reader:
    name = parameter.alias
    return lambda asked: _checked(parameter, asked.path[name])


def _of_query(parameter: _Parameter) -> Reader:
    name, default = parameter.alias, _default_of(parameter)
    if get_origin(parameter.field_info.annotation) is list:

        def of_list(asked: Asked) -> Any:
            values = asked.query.getlist(name) if asked.query is not None else []
            return _checked(parameter, values) if values else [*default]

        return of_list

    def of_one(asked: Asked) -> Any:
        value = asked.query.get(name) if asked.query is not None else None
        return default if value is None else _checked(parameter, value)

    return of_one


def _of_header(parameter: _Parameter) -> Reader:
    name, default = str(parameter.field_info.alias).lower().encode(), _default_of(parameter)

    def reader(asked: Asked) -> Any:
        value = asked.headers.get(name)
        return default if value is None else _checked(parameter, value.decode("latin-1"))

    return reader


def _of_body(parameter: _Parameter, parameters: Sequence[_Parameter]) -> Reader:
    model = parameter.field_info.annotation
    if len(parameters) > 1 or not (isinstance(model, type) and issubclass(model, BaseModel)):
        raise TypeError(f"the body {parameter.name} is not one model")

    def reader(asked: Asked) -> Any:
        if asked.headers.get(b"content-type") != JSON:
            raise UnsureError
        try:
            return model.model_validate_json(asked.body)
        except ValidationError:
            raise UnsureError from None

    return reader


def _default_of(parameter: _Parameter) -> Any:
    """Raises TypeError for a required parameter: only what is in the path is."""
    if parameter.field_info.is_required():
        raise TypeError(f"{parameter.name} has no default")
    return parameter.field_info.get_default(call_default_factory=True)


def _checked(parameter: _Parameter, value: object) -> Any:
    checked, errors = parameter.validate(value)
    if errors:
        raise UnsureError
    return checked
