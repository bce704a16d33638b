"""Schemathesis against any service that has our document: no 5xx, and only documented answers.

``python -m tests.frontends.fuzz URL``, or ``make contract URL=…``, asks a deployment, as a service
(VESTIBULE_SERVICE_KEY) and so without its admins' calls. Users of made-up names join its pools and
leave them again: nothing for a deployment that is in use. `FUZZ_SEED=N` runs other examples; a
failure prints its own.
"""

import os
import re
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

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

SEED = int(os.environ.get("FUZZ_SEED", "3"))
EXAMPLES = 10  # of each operation of a deployment
TIMEOUT_S = 5.0
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
# Streams that end only when the ticket does: their status is read, and then they are closed.
ENDLESS = {"/queue/events/{user_id}", "/queue/ws/{user_id}", "/admin/events"}
# A good body makes the service ask the address in it, which no test may do.
ASKS_ELSEWHERE = {"/workers/register"}
_JOINS = re.compile(r"/(?:queue/join|wait)/([^/?]+)(?:/join)?\??(.*)$")  # user, query


def fuzz(
    url: str,
    key: str,
    document: Mapping[str, Any],
    examples: int,
    hear: Callable[..., None] = lambda *_, **__: None,
) -> None:
    """Asks for every operation of the document with so many good and so many bad requests.

    Args:
        hear: gets each answer.

    Raises:
        Exception: an answer that the document does not allow, with the request that got it.
    """
    schema = schemathesis.openapi.from_dict(dict(document))
    with requests.Session() as session:
        session.headers["Authorization"] = f"Bearer {key}"
        session.hooks["response"] = hear
        try:
            for result in schema.get_all_operations():
                assert isinstance(result, Ok)
                operation = result.ok()
                modes = [GenerationMode.NEGATIVE]
                if operation.path not in ASKS_ELSEWHERE:
                    modes.append(GenerationMode.POSITIVE)
                for mode in modes:
                    _try(operation, mode, url, session, examples)
        except BaseException as error:
            error.add_note(f"FUZZ_SEED={SEED}")
            raise


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


def told_by(url: str) -> dict[str, Any]:
    """The document of a service."""
    document: dict[str, Any] = requests.get(f"{url}/openapi.json", timeout=TIMEOUT_S).json()
    return document


def _ask_a_deployment(url: str, key: str) -> None:
    """As a service: what only admins may call is left out, and who joined leaves again."""
    document = told_by(url)
    paths = document["paths"].items()
    document["paths"] = {path: said for path, said in paths if not path.startswith("/admin/")}
    joined: set[tuple[str, str]] = set()

    def note(answer: requests.Response, *_: Any, **__: Any) -> None:
        if found := _JOINS.search(answer.request.path_url):
            joined.add((found[1], found[2]))

    authorized = {"Authorization": f"Bearer {key}"}
    try:
        fuzz(url, key, document, EXAMPLES, note)
    finally:
        for user, query in joined:
            path = f"{url}/queue/leave/{user}?{query}"
            requests.post(path, headers=authorized, timeout=TIMEOUT_S)


if __name__ == "__main__":
    _ask_a_deployment(sys.argv[1].rstrip("/"), os.environ["VESTIBULE_SERVICE_KEY"])
