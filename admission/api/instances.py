"""The fleet's instances, for admins: what there is, what may be had, and what is wanted.

What is wanted becomes a command on a durable stream, which a scheduler takes exactly once; the
answer (202) tells its id, and the ids of the instances, which can be followed from then on. With
an ``Idempotency-Key`` a call that is repeated within 24 hours is the same command.
"""

import hashlib
import json
import re
import secrets
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from aiohttp import web
from pydantic import Field

from admission import fleet_views, views, wire
from admission.api import access
from admission.asked import Asked
from admission.attendance import GOING, Attendance
from admission.auth import Caller
from admission.auth import Kind as KeyKind
from admission.domain import DEFAULT_POOL
from admission.errors import AdmissionError, BadInput, Conflict, NotFound, Unavailable
from admission.instance import (
    ASKABLE,
    COMMAND_INSTANCES_MAX,
    INSTANCE_ID,
    Command,
    Event,
    Instance,
    Kind,
    Offer,
    Order,
    State,
    instance_ids,
)
from admission.keys import LEDGER, STORE
from admission.store.fleet_store import FleetStore, OtherWords

if TYPE_CHECKING:
    from admission.accounting.ledger import Ledger

DRAIN_MAX_S = 86_400
PAGE_MAX = 1_000
HISTORY_MAX = 500  # lines of one instance that are told
IDEMPOTENCY_KEY = "Idempotency-Key"
_IDEMPOTENCY = re.compile(r"[!-~]{1,128}")

Text = Annotated[str, Field(max_length=128, pattern=r"^[ -~]*$")]
OptionName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
OptionText = Annotated[str, Field(max_length=1024)]
T = TypeVar("T")

routes = web.RouteTableDef()
shown = web.RouteTableDef()  # a function serves these with a database of its own, or without


class ReasonBody(wire.Body):
    reason: wire.Reason = ""  # as people will read it in the history


class DrainBody(ReasonBody):
    drain: Annotated[int, Field(ge=0, le=DRAIN_MAX_S)] | None = None  # s its requests are given


class ProvisionBody(ReasonBody):
    """What is left out is that of the cheapest offer that fits."""

    provider: Annotated[str, Field(min_length=1, max_length=64)]
    pool: wire.PoolName = DEFAULT_POOL
    type: Text = ""
    zone: Text = ""
    market: Literal["on-demand", "spot"] = "on-demand"
    model: Annotated[str, Field(max_length=256)] = ""
    count: Annotated[int, Field(ge=1, le=COMMAND_INSTANCES_MAX)] = 1
    options: dict[OptionName, OptionText] = Field(default={}, max_length=32)  # never a secret


# --- what there is -----------------------------------------------------------------------------


@shown.get("/admin/instances")
async def instances(request: Asked) -> web.Response:
    access.must_be(request, KeyKind.ADMIN)
    offset = wire.read_number(request, "offset", 0, 1_000_000_000)
    limit = wire.read_number(request, "limit", PAGE_MAX, PAGE_MAX)
    pool = wire.read_pool(request, request.query["pool"]) if "pool" in request.query else None
    state, provider = _state(request), request.query.get("provider")
    if state is State.ARCHIVED:
        from admission.accounting import instances as past

        found = await _from_sql(
            request,
            lambda ledger: past.found(
                ledger, state, pool=pool, provider=provider, offset=offset, limit=limit
            ),
        )
        return views.answer({"instances": [_view(one, "") for one in found]})
    fleet, attendance = request.app[STORE].fleet, await Attendance.of(request.app[STORE])
    waiting = {one.id: one for one in await _waiting(fleet)}  # first: what is taken now is known
    known = {one.id: one for one in await fleet.instances()}
    wanted = [
        one
        for one in {**waiting, **known}.values()
        if (pool is None or one.order.pool == pool)
        and (provider is None or one.order.provider == provider)
        and (state is None or one.state is state)
    ]
    wanted.sort(key=lambda one: (one.requested_ms, one.id))
    page = wanted[offset : offset + limit]
    told = [_view(one, attendance.lack(one), pending=one.id not in known) for one in page]
    return views.answer({"instances": told})


@shown.get("/admin/instances/{instance_id}")
async def instance(request: Asked) -> web.Response:
    access.must_be(request, KeyKind.ADMIN)
    instance_id, fleet = _instance_id(request), request.app[STORE].fleet
    one, pending = await _live(fleet, instance_id)
    lines = await fleet.lines(instance_id)
    if one is None and LEDGER in request.app:
        one, lines = await _of_the_past(request, instance_id)
    if one is None:
        raise _unknown(instance_id, lines=lines)
    view = _view(one, (await Attendance.of(request.app[STORE])).lack(one), pending=pending)
    return views.answer({**view, "history": [fleet_views.event_view(line) for line in lines]})


def _view(one: Instance, lack: str, *, pending: bool = False) -> dict[str, Any]:
    """``lack``: why nobody looks after it, if so."""
    return {**fleet_views.instance_view(one, pending=pending), "unattended": lack or None}


@routes.get("/admin/instances/offers")
async def offers(request: Asked) -> web.Response:
    access.must_be(request, KeyKind.ADMIN)
    return views.answer(fleet_views.offers_view(await request.app[STORE].fleet.offers()))


# --- what is wanted ----------------------------------------------------------------------------


@routes.post("/admin/instances")
async def provision(request: Asked) -> web.Response:
    who = access.must_be(request, KeyKind.ADMIN)
    body = await wire.read_body(request, ProvisionBody)
    fleet, said = request.app[STORE].fleet, body.model_dump_json().encode()
    command_id = _command_id(request, who)
    ids = instance_ids(body.provider, command_id, body.count)
    if not await _known(fleet, command_id, said):
        access.existing(request, body.pool)
        offer = await _offer(fleet, body)
        order = Order(
            provider=body.provider,
            pool=body.pool,
            type=offer.type,
            zone=offer.zone,
            market=offer.market,
            model=body.model,
            price_per_hour=offer.price_per_hour,
            currency=offer.currency,
            options=body.options,
            billed_least_s=offer.billed_least_s,
        )
        command = Command(
            command_id,
            Kind.PROVISION,
            await fleet.now_ms(),
            _name_of(who),
            ids,
            order=order,
            reason=body.reason,
        )
        await _ask(fleet, command, said)
    return _accepted(command_id, Kind.PROVISION, ids)


@routes.post("/admin/instances/{instance_id}/drain")
async def drain(request: Asked) -> web.Response:
    who = access.must_be(request, KeyKind.ADMIN)
    body = await wire.read_body(request, DrainBody)
    return await _want(request, who, Kind.DRAIN, reason=body.reason, drain_s=body.drain)


@routes.post("/admin/instances/{instance_id}/resume")
async def resume(request: Asked) -> web.Response:
    who = access.must_be(request, KeyKind.ADMIN)
    body = await wire.read_body(request, ReasonBody)
    return await _want(request, who, Kind.RESUME, reason=body.reason)


@routes.post("/admin/instances/{instance_id}/archive")
async def archive(request: Asked) -> web.Response:
    who = access.must_be(request, KeyKind.ADMIN)
    body = await wire.read_body(request, ReasonBody)
    return await _want(request, who, Kind.ARCHIVE, reason=body.reason)


@routes.delete("/admin/instances/{instance_id}")
async def terminate(request: Asked) -> web.Response:
    who = access.must_be(request, KeyKind.ADMIN)
    drain_s = None
    if "drain" in request.query:
        drain_s = wire.read_number(request, "drain", 0, DRAIN_MAX_S)
    if _flag(request, "force"):
        if drain_s:
            raise BadInput("drain: force gives its requests no time", field="drain")
        drain_s = 0
    reason = request.query.get("reason", "")
    if len(reason) > 1024:
        raise BadInput("reason: at most 1024 characters", field="reason")
    return await _want(request, who, Kind.TERMINATE, reason=reason, drain_s=drain_s)


async def _want(
    request: Asked, who: Caller, kind: Kind, *, reason: str, drain_s: int | None = None
) -> web.Response:
    """Ask for a change of the instance in the path."""
    instance_id, fleet = _instance_id(request), request.app[STORE].fleet
    command_id = _command_id(request, who)
    said = json.dumps([kind, instance_id, reason, drain_s]).encode()
    if not await _known(fleet, command_id, said):
        one, _ = await _live(fleet, instance_id)
        if one is None:
            raise _unknown(instance_id)
        if one.state not in ASKABLE[kind]:
            raise Conflict(
                f"instance_id: {instance_id} is {one.state}",
                code="wrong_state",
                field="instance_id",
                extra={"state": one.state.value},
            )
        at_ms, name = await fleet.now_ms(), _name_of(who)
        command = Command(
            command_id, kind, at_ms, name, (instance_id,), drain_s=drain_s, reason=reason
        )
        await _ask(fleet, command, said)
    return _accepted(command_id, kind, (instance_id,))


def _accepted(command_id: str, kind: Kind, ids: tuple[str, ...]) -> web.Response:
    view = {"command_id": command_id, "kind": kind.value, "instances": list(ids)}
    return web.json_response(view, status=202)


async def _known(fleet: FleetStore, command_id: str, said: bytes) -> bool:
    """Whether a call is repeated: what it asked for may no longer be possible by now."""
    try:
        return await fleet.knows(command_id, said)
    except OtherWords:
        raise _other_words() from None


async def _ask(fleet: FleetStore, command: Command, said: bytes) -> None:
    try:
        await fleet.ask(command, said)
    except OtherWords:
        raise _other_words() from None


def _other_words() -> AdmissionError:
    return BadInput(
        f"{IDEMPOTENCY_KEY}: another call had it within 24 hours",
        code="idempotency_key_reused",
        field=IDEMPOTENCY_KEY,
    )


def _command_id(request: Asked, who: Caller) -> str:
    """By the call's Idempotency-Key, for each admin's key apart; without one it is a new one."""
    given = request.headers.get(IDEMPOTENCY_KEY)
    if given is None:
        return f"c-{secrets.token_hex(12)}"
    if not _IDEMPOTENCY.fullmatch(given):
        raise BadInput(
            f"{IDEMPOTENCY_KEY}: 1 to 128 printable characters of ASCII, no space",
            field=IDEMPOTENCY_KEY,
        )
    return "c-" + hashlib.sha256(f"{who.key or ''} {given}".encode()).hexdigest()[:24]


def _name_of(who: Caller) -> str:
    return who.key or "admin"


async def _offer(fleet: FleetStore, body: ProvisionBody) -> Offer:
    """The cheapest one that fits.

    Raises:
        BadInput: names the field that nobody offers.
        Conflict: nothing is to be had there now.
    """
    known = await fleet.offers()
    if body.provider not in known:
        named = f"one of {', '.join(known)}" if known else "no scheduler has published any offer"
        raise BadInput(f"provider: {named}", field="provider")
    fits = list(known[body.provider].offers)
    if not fits:
        raise Conflict(f"{body.provider} has no machine to offer now.", code="nothing_offered")
    for name in ("type", "zone", "market"):
        wanted = getattr(body, name)
        there = sorted({getattr(offer, name) for offer in fits})
        fits = [offer for offer in fits if wanted in ("", getattr(offer, name))]
        if not fits:
            raise BadInput(f"{name}: one of {', '.join(map(repr, there))}", field=name)
    return min(fits, key=lambda offer: offer.price_per_hour or 0)


# --- reading -----------------------------------------------------------------------------------


async def _live(fleet: FleetStore, instance_id: str) -> tuple[Instance | None, bool]:
    """An instance, and whether it is one that no scheduler has taken; None when it is in SQL alone,
    or never was."""
    one = await fleet.instance(instance_id)
    if one is not None:
        return one, False
    waiting = {each.id: each for each in await _waiting(fleet)}
    one = await fleet.instance(instance_id)  # it may have been taken just now
    return one or waiting.get(instance_id), one is None and instance_id in waiting


async def _waiting(fleet: FleetStore) -> list[Instance]:
    """What was asked for and no scheduler has taken: so that it is seen, and why nothing moves."""
    commands = await fleet.commands(PAGE_MAX)
    return [one for _, command in commands for one in fleet_views.pending_instances(command)]


async def serving(fleet: FleetStore, pool: str) -> list[str]:
    """The ids of the machines that serve a pool, or are to, also those that nobody has taken."""
    everybody = [*await _waiting(fleet), *await fleet.instances()]
    mine = [one for one in everybody if one.order.pool == pool]
    return sorted({one.id for one in mine if one.state in GOING or one.state is State.DRAINING})


async def _of_the_past(request: Asked, instance_id: str) -> tuple[Instance | None, list[Event]]:
    """
    Raises:
        NotFound: it is none of those that live, and the past cannot be read.
    """
    from admission.accounting import instances as past

    def ask(ledger: "Ledger") -> tuple[Instance | None, list[Event]]:
        return past.instance(ledger, instance_id), past.history(ledger, instance_id, HISTORY_MAX)

    try:
        return await _from_sql(request, ask)
    except Unavailable as error:
        raise _unknown(
            instance_id, f". What was archived cannot be read: {error.detail}"
        ) from error


async def _from_sql(request: Asked, ask: "Callable[[Ledger], T]") -> T:
    """Its libraries are loaded only when they are needed: a function may be without."""
    from admission.api import table

    return await table.asked(request, ask)


def _unknown(instance_id: str, more: str = "", lines: Sequence[Event] = ()) -> NotFound:
    """``lines``: of one that was refused, or that only a provider knew."""
    history = {"history": [fleet_views.event_view(line) for line in lines]} if lines else {}
    return NotFound(
        f"instance_id: there is no instance {instance_id!r}{more}",
        code="instance_unknown",
        field="instance_id",
        extra={**history},
    )


def _instance_id(request: Asked) -> str:
    instance_id = request.match_info["instance_id"]
    if not INSTANCE_ID.fullmatch(instance_id):
        raise BadInput(
            "instance_id: 1 to 63 characters of a-z 0-9 -, the first no -", field="instance_id"
        )
    return instance_id


def _state(request: Asked) -> State | None:
    given = request.query.get("state")
    if given is None:
        return None
    if given not in set(State):
        raise BadInput(f"state: one of {', '.join(State)}", field="state")
    return State(given)


def _flag(request: Asked, name: str) -> bool:
    given = request.query.get(name, "false")
    if given not in ("true", "false"):
        raise BadInput(f"{name}: true or false", field=name)
    return given == "true"
