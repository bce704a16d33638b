"""Schemathesis against the running service: whatever is sent, no 5xx and only documented answers.

Two examples of each operation every day, many as a soak. `FUZZ_SEED=N` runs others; a failure
prints its own.
"""

import asyncio
import os
from contextlib import suppress
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from admission.accounting.ledger import Ledger
from admission.accounting.record import Record
from admission.openapi import document
from tests.conftest import Service
from tests.frontends.conftest import Model

SEED = int(os.environ.get("FUZZ_SEED", "3"))
TIMEOUT_S = 5.0
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
# Streams that end only when the ticket does: their status is read, and then they are closed.
ENDLESS = {"/queue/events/{user_id}", "/queue/ws/{user_id}"}
# A good body makes the service ask the address in it, which no test may do.
ASKS_ELSEWHERE = {"/workers/register"}

DOCUMENT = document("1")


@pytest.mark.parametrize("examples", [2, pytest.param(20, marks=pytest.mark.soak)])
async def test_whatever_is_sent_gets_a_documented_answer(
    service: Service, model: Model, examples: int
) -> None:
    await service.capacity(100_000)
    Ledger(service.settings.ledger_url()).add([Record(id="1", model="tiny")])
    try:
        await asyncio.to_thread(_fuzz, service.url, service.admin_key, examples)
    except BaseException as error:
        error.add_note(f"FUZZ_SEED={SEED}")
        raise


async def test_what_needs_a_key_is_refused_without_one(service: Service) -> None:
    values = {"user_id": "ada", "name": "page.css", "of": "user"}
    for path, methods in DOCUMENT["paths"].items():
        for method, operation in methods.items():
            filled = path
            for parameter in operation["parameters"]:
                if parameter["in"] == "path":
                    name = parameter["name"]
                    filled = filled.replace(f"{{{name}}}", values.get(name, "default"))
            async with service.http.request(method.upper(), filled) as response:
                assert (response.status == 401) == bool(operation["security"]), (method, path)


def _fuzz(url: str, key: str, examples: int) -> None:
    schema = schemathesis.openapi.from_dict(DOCUMENT)
    with requests.Session() as session:
        session.headers["Authorization"] = f"Bearer {key}"
        for result in schema.get_all_operations():
            assert isinstance(result, Ok)
            operation = result.ok()
            modes = [GenerationMode.NEGATIVE]
            if operation.path not in ASKS_ELSEWHERE:
                modes.append(GenerationMode.POSITIVE)
            for mode in modes:
                _try(operation, mode, url, session, examples)


def _try(
    operation: Any, mode: GenerationMode, url: str, session: requests.Session, examples: int
) -> None:
    @seed(SEED)
    @settings(
        max_examples=examples,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def ask(case: Case[Any]) -> None:
        if operation.path in ENDLESS:
            _ask_and_close(case, url, session)
        else:
            case.call_and_validate(
                base_url=url,
                session=session,
                checks=CHECKS,
                timeout=TIMEOUT_S,
                allow_redirects=False,
            )

    with suppress(Unsatisfiable):  # nothing goes in, so nothing can be wrong with it
        ask()


def _ask_and_close(case: Case[Any], url: str, session: requests.Session) -> None:
    given = case.as_transport_kwargs(base_url=url)
    given.pop("stream", None)
    headers = {**session.headers, **(given.pop("headers", None) or {})}
    with session.request(
        **given, headers=headers, stream=True, timeout=TIMEOUT_S, allow_redirects=False
    ) as response:
        described = case.operation.definition.raw["responses"]
        assert str(response.status_code) in described, response.status_code
