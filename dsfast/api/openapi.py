"""openapi.json (OpenAPI 3.1), made from the table of operations and the types of requests and answers."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from dsfast import __version__
from dsfast.api.operations import OPERATIONS, Operation
from dsfast.views import ErrorView

_REF = "#/components/schemas/{name}"
_PATH_PARAMETERS = {
    "run": "The id of a run, a unique beginning of one, or `last`.",
    "task": "The name of a task.",
    "worker": "The name of a worker.",
}
_HEADERS = {
    "Idempotency-Key": "A text of your choice: the same one again answers with the run that it started.",
    "If-None-Match": "The ETag of the answer that you have.",
}
_STATUSES = {200: "Success", 201: "The run is durable and starts", 304: "Nothing has changed", 503: "Not ready"}


def document() -> dict[str, Any]:
    """The whole description."""
    types = {each for operation in OPERATIONS for each in _types(operation)} | {ErrorView}
    ordered = sorted(types, key=lambda each: each.__name__)
    schemas, components = msgspec.json.schema_components(ordered, ref_template=_REF)
    schema_of = dict(zip(ordered, schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _described(operation, schema_of)
    return {
        "openapi": "3.1.0",
        "info": {"title": "dsfast", "version": __version__, "description": "Submit, watch and stop runs."},
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"token": []}],
    }


def _types(operation: Operation) -> list[type[msgspec.Struct]]:
    bodies = [each for each in operation.answers.values() if each is not None]
    return bodies + ([operation.body] if operation.body else [])


def _described(operation: Operation, schema_of: dict[Any, Any]) -> dict[str, Any]:
    summary = (operation.handler.__doc__ or "").strip().partition("\n")[0]
    described: dict[str, Any] = {
        "operationId": operation.handler.__name__,
        "summary": summary,
        "parameters": [*_path_parameters(operation), *_query_parameters(operation), *_header_parameters(operation)],
        "responses": _answers(operation, schema_of),
    }
    if operation.body is not None:
        described["requestBody"] = {"required": True, "content": _body(operation, schema_of)}
    if operation.open:
        described["security"] = []
    return described


def _body(operation: Operation, schema_of: dict[Any, Any]) -> dict[str, Any]:
    content: dict[str, Any] = {"application/json": {"schema": schema_of[operation.body]}}
    if operation.yaml:
        content["application/yaml"] = {"schema": {"type": "string"}}
    return content


def _answers(operation: Operation, schema_of: dict[Any, Any]) -> dict[str, Any]:
    answers: dict[str, Any] = {
        "default": {
            "description": "What went wrong",
            "content": {"application/json": {"schema": schema_of[ErrorView]}},
        }
    }
    for status, type_ in operation.answers.items():
        answer: dict[str, Any] = {"description": _STATUSES[status]}
        if type_ is not None:
            answer["content"] = {"application/json": {"schema": schema_of[type_]}}
        elif status == 200:
            answer["content"] = {"text/plain": {"schema": {"type": "string"}}}
        answers[str(status)] = answer
    return answers


def _path_parameters(operation: Operation) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "in": "path",
            "required": True,
            "description": _PATH_PARAMETERS[name],
            "schema": {"type": "string"},
        }
        for name in re.findall(r"{(\w+)}", operation.path)
    ]


def _query_parameters(operation: Operation) -> list[dict[str, Any]]:
    (_,), components = msgspec.json.schema_components([operation.query], ref_template=_REF)
    properties = components[operation.query.__name__]["properties"]
    return [
        {
            "name": name,
            "in": "query",
            "required": False,
            "description": schema.pop("description", ""),
            "schema": schema,
        }
        for name, schema in properties.items()
    ]


def _header_parameters(operation: Operation) -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "header", "required": False, "description": _HEADERS[name], "schema": {"type": "string"}}
        for name in operation.headers
    ]
