"""The server's own description of itself, and what schemathesis asks that the description does not foresee."""

from __future__ import annotations

import json

import jsonschema
import pytest
from LesionLib.inference.runner import WorkerRunner
from LesionLib.remote.messages import FRAME_TYPE
from served import TOKEN, serving

MODEL = "lung-nodule-malignancy"


@pytest.fixture(scope="module")
def idle(tmp_path_factory):
    """A server whose worker answers nothing: what is asked is refused or answered all the same."""
    worker = WorkerRunner(arguments=("-c", "import sys; sys.stdin.read()"))
    with serving(
        MODEL, runner=worker, folder=tmp_path_factory.mktemp("shelf"), max_sessions=500, max_upload=2**20
    ) as running:
        yield running


def test_the_document_and_its_page_name_every_operation(idle):
    status, document, _ = idle.ask("GET", "/openapi.json", token="")
    assert (status, document["openapi"]) == (200, "3.1.0")
    operations = idle.service.api.operations()
    named = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    assert named == {(one.method, one.path) for one in operations}
    identifiers = [one["operationId"] for methods in document["paths"].values() for one in methods.values()]
    assert len(set(identifiers)) == len(identifiers)
    status, page, _ = idle.ask("GET", "/reference", token="")
    assert status == 200
    assert all(one.path in page.decode() for one in operations)


def test_every_schema_in_the_document_is_one(idle):
    _, document, _ = idle.ask("GET", "/openapi.json")

    def schemas(value):
        if isinstance(value, dict):
            if isinstance(value.get("schema"), dict):
                yield value["schema"]
            for part in value.values():
                yield from schemas(part)
        elif isinstance(value, list):
            for part in value:
                yield from schemas(part)

    found = list(schemas(document["paths"]))
    assert len(found) > 50
    for schema in found:
        jsonschema.Draft202012Validator.check_schema(schema)


def test_schemathesis_finds_nothing(idle):
    schemathesis = pytest.importorskip("schemathesis")
    from hypothesis import HealthCheck, Phase, given, settings
    from schemathesis.specs.openapi.checks import positive_data_acceptance

    schemathesis.serializer.alias(FRAME_TYPE, "application/octet-stream")
    _, document, _ = idle.ask("GET", "/openapi.json")
    session = idle.session().id
    few = settings(
        max_examples=8, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck), database=None
    )
    asked = set()
    for result in schemathesis.openapi.from_dict(document).get_all_operations():
        operation = result.ok()
        if operation.path == "/api/models/{model}":
            continue  # loading a model waits for the worker, which here never answers

        @given(case=operation.as_strategy())
        @few
        def ask(case):
            asked.add((case.operation.method.upper(), case.operation.path))
            if "session" in case.path_parameters and case.operation.method.lower() != "delete":
                case.path_parameters["session"] = session
            case.call_and_validate(
                base_url=f"http://127.0.0.1:{idle.port}",
                headers={"Authorization": f"Bearer {TOKEN}"},
                timeout=20,
                # A file that is no CT, or a box with a shear, is as the schema says and refused all the same (422).
                excluded_checks=[positive_data_acceptance],
            )

        ask()
    assert len(asked) == len(idle.service.api.operations()) - 1
    assert idle.ask("GET", "/api/server")[0] == 200


@pytest.mark.parametrize("path", ["/api/server", "/api/sessions", "/api/folder"])
def test_a_method_that_is_not_there_is_refused_with_those_that_are(idle, path):
    status, refused, headers = idle.ask("PATCH", path)
    assert status == 405
    assert "GET" in headers["allow"] or "POST" in headers["allow"]
    assert json.dumps(refused)
