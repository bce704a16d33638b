"""Projects, and how much a project, a user or a key may use: for admins."""

from typing import Annotated, Any

from aiohttp import web
from pydantic import Field

from admission import views, wire
from admission.accounting.limits import OF, Limits, row_of
from admission.api import access
from admission.asked import Asked
from admission.auth import Keyring, Kind
from admission.auth.keyring import PROJECT_ID, Project
from admission.domain import USER_ID
from admission.errors import BadInput, Conflict, NotFound
from admission.keys import GATEKEEPER

MOST = 10**15  # exact in a double, which Redis' Lua counts in
Label = Annotated[str, Field(max_length=128)]
Most = Annotated[int, Field(ge=0, le=MOST)] | None

routes = web.RouteTableDef()


class LimitsBody(wire.Body):
    """How much may be used; null or absent: no limit. Days and months are UTC's."""

    requests_per_minute: Most = None
    tokens_per_minute: Most = None
    tokens_per_day: Most = None
    tokens_per_month: Most = None

    def limits(self) -> Limits:
        return Limits(**self.model_dump())


class ProjectBody(wire.Body):
    """``limits`` absent: they stay; null: the project has none of its own."""

    label: Label | None = None
    limits: LimitsBody | None = None


@routes.get("/admin/projects")
async def projects(request: Asked) -> web.Response:
    keyring = _keyring(request)
    await keyring.refresh()
    kept = sorted(keyring.projects.values(), key=lambda project: project.id)
    return web.json_response({"projects": [_view(keyring, project) for project in kept]})


@routes.get("/admin/projects/{id}")
async def project(request: Asked) -> web.Response:
    keyring = _keyring(request)
    return web.json_response(_view(keyring, await existing(request)))


@routes.put("/admin/projects/{id}")
async def keep(request: Asked) -> web.Response:
    keyring = _keyring(request)
    identity = request.match_info["id"]
    if not PROJECT_ID.fullmatch(identity):
        raise BadInput("id: 1 to 64 characters of a-z 0-9 -", field="id")
    body = await wire.read_body(request, ProjectBody)
    await keyring.refresh()
    known = keyring.projects.get(identity)
    label = body.label if body.label is not None else known.label if known else ""
    # The limits first: a new project is never there without them.
    if body.limits is not None:
        await keyring.limit(row_of("project", identity), body.limits.limits())
    elif "limits" in body.model_fields_set:
        await keyring.limit_no_more(row_of("project", identity))
    return web.json_response(_view(keyring, await keyring.keep_project(identity, label)))


@routes.delete("/admin/projects/{id}")
async def drop(request: Asked) -> web.Response:
    keyring, known = _keyring(request), await existing(request)
    if any(key.project == known.id for key in keyring.keys.values()):
        raise Conflict("id: keys of this project exist; delete them first", field="id")
    if not await keyring.drop_project(known.id):
        raise _no_project(known.id)
    return web.json_response({"id": known.id, "deleted": True})


@routes.get("/admin/limits")
async def limits(request: Asked) -> web.Response:
    keyring = _keyring(request)
    await keyring.refresh()
    rows = {row: _shown(limits) for row, limits in sorted(keyring.limits.items())}
    return web.json_response({"limits": rows})


@routes.put("/admin/limits/{of}")
async def limit_all(request: Asked) -> web.Response:
    return await _limit(request, row_of(_of(request)))


@routes.put("/admin/limits/{of}/{whose}")
async def limit_one(request: Asked) -> web.Response:
    keyring, row = _keyring(request), _row(request)
    await keyring.refresh()
    of, _, whose = row.partition(":")
    there = {"user": {whose}, "project": keyring.projects.keys(), "key": keyring.keys.keys()}
    if whose not in there[of]:
        raise NotFound(f"whose: there is no {of} {whose!r}", field="whose")
    return await _limit(request, row)


@routes.delete("/admin/limits/{of}")
async def unlimit_all(request: Asked) -> web.Response:
    return await _unlimit(request, row_of(_of(request)))


@routes.delete("/admin/limits/{of}/{whose}")
async def unlimit_one(request: Asked) -> web.Response:
    return await _unlimit(request, _row(request))


async def existing(request: Asked) -> Project:
    """The project in the path.

    Raises:
        NotFound: there is none of this id.
    """
    keyring, identity = _keyring(request), request.match_info["id"]
    await keyring.refresh()
    if identity not in keyring.projects:
        raise _no_project(identity)
    return keyring.projects[identity]


async def _limit(request: Asked, row: str) -> web.Response:
    keyring = _keyring(request)
    given = (await wire.read_body(request, LimitsBody)).limits()
    await keyring.limit(row, given)
    return web.json_response({"row": row, "limits": _shown(given)})


async def _unlimit(request: Asked, row: str) -> web.Response:
    if not await _keyring(request).limit_no_more(row):
        raise NotFound(f"of: {row} has no limits of its own", field="of")
    return web.json_response({"row": row, "limits": None})


def _keyring(request: Asked) -> Keyring:
    """The keyring, for admins only."""
    access.must_be(request, Kind.ADMIN)
    return request.app[GATEKEEPER].keyring


def _of(request: Asked) -> str:
    access.must_be(request, Kind.ADMIN)
    of = request.match_info["of"]
    if of not in OF:
        raise BadInput(f"of: one of {', '.join(OF)}", field="of")
    return of


def _row(request: Asked) -> str:
    of, whose = _of(request), request.match_info["whose"]
    if not USER_ID.fullmatch(whose):  # which the other ids are too
        raise BadInput("whose: 1 to 128 characters of A-Z a-z 0-9 . _ - @ : | +", field="whose")
    return row_of(of, whose)


def _no_project(identity: str) -> NotFound:
    return NotFound(f"id: there is no project {identity!r}", field="id")


def _view(keyring: Keyring, project: Project) -> dict[str, Any]:
    return {
        "id": project.id,
        "label": project.label,
        "created_at": views.iso(project.created_ms),
        "limits": _shown(keyring.limits.get(row_of("project", project.id))),
    }


def _shown(limits: Limits | None) -> dict[str, int | None] | None:
    if limits is None:
        return None
    return {name: getattr(limits, name) for name in limits.__struct_fields__}
