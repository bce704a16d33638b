"""What an admin keeps: keys, priorities, projects and limits."""

import asyncio
from typing import Any

from infra.doctor import views
from infra.doctor.room import Room
from infra.doctor.rule import SHUT, Broken, Rules, expect, own

rules = Rules()
KEYS: tuple[tuple[dict[str, Any], str], ...] = (
    ({}, "kind"),
    ({"kind": "root"}, "kind"),
    ({"kind": "user"}, "body"),
    ({"kind": "service", "user": "ada"}, "body"),
    ({"kind": "user", "user": "a b"}, "user"),
    ({"kind": "service", "project": "contract-nowhere"}, "project"),
    ({"kind": "service", "priority": "V I P"}, "priority"),
    ({"kind": "service", "expires_in": 0}, "expires_in"),
    ({"kind": "service", "label": "x" * 129}, "label"),
    ({"kind": "service", "colour": "red"}, "colour"),
)


@rules("Keys are stored hashed: a key's text is told once, and never listed.")
async def a_keys_text_is_told_once(room: Room) -> None:
    reply = await room.new_key("service")
    told = reply.good(201)
    views.check_view(reply.call, told, {**views.KEY, "key": "string"})
    expect("Cache-Control of a new key", reply.headers.get("Cache-Control"), "no-store")
    if not told["key"].startswith("vst_service_"):
        raise Broken(reply.call, "a key that scanners know by vst_service_", "another prefix")
    listed = await room.admin("GET", "/admin/keys")
    if told["key"] in listed.text:
        raise Broken(listed.call, "no key's text", "the text of the new one")
    (row,) = [key for key in listed.good()["keys"] if key["id"] == told["id"]]
    expect("the key as it is listed", row, {k: v for k, v in told.items() if k != "key"})


@rules("A bad key names the field, and none is made.")
async def a_wrong_field_of_a_key_is_named(room: Room) -> None:
    for body, field in KEYS:
        (await room.admin("POST", "/admin/keys", body)).refused(422, "bad_input", field)
    (await room.admin("DELETE", "/admin/keys/contract-none")).refused(404, None, "id")


@rules("/admin priorities: the class an admin gives a user counts from the next join.", own(
    capacity=0, priorities={"vip": {"head_start": 600}}
))  # fmt: skip
async def an_admin_gives_a_user_a_class(room: Room) -> None:
    user = room.user()
    path = f"/admin/priorities/{user}"
    room.take_away(path)
    (await room.admin("PUT", path, {"priority": "vip"})).good()
    seen = (await room.admin("GET", path)).good()
    expect("the user's class", seen, {"user_id": user, "priority": "vip"})
    for _ in range(5):  # every process knows it within a second
        await asyncio.sleep(0.5)
        joined = await room.join(user)
        if joined["priority"] == "vip":
            break
        await room.ask("leave", user)
    expect("the class of the ticket", joined["priority"], "vip")
    (await room.admin("DELETE", path)).good()
    (await room.admin("DELETE", path)).refused(404)
    (await room.admin("PUT", path, {"priority": "V I P"})).refused(422, "bad_input", "priority")


@rules("/admin projects and limits are kept, changed and forgotten.", SHUT)
async def projects_and_their_limits_are_kept(room: Room) -> None:
    name = room.user().lower()
    path = f"/admin/projects/{name}"
    room.take_away(path)
    limits = {"requests_per_minute": 7, "tokens_per_minute": None, "tokens_per_day": 9}
    made = (await room.admin("PUT", path, {"label": "Contract", "limits": limits})).good()
    expect("the limits", made["limits"], {**limits, "tokens_per_month": None})
    (await room.admin("PUT", path, {"label": "Renamed"})).good()
    seen = (await room.admin("GET", path)).good()
    told = (seen["id"], seen["label"], seen["limits"]["tokens_per_day"])
    expect("the project", told, (name, "Renamed", 9))
    wrong = await room.admin("PUT", path, {"limits": {"tokens_per_day": -1}})
    wrong.refused(422, "bad_input", "limits.tokens_per_day")
    _, key = await room.key("user", user=room.user(), project=name)
    (await room.admin("DELETE", path)).refused(409)
    (await room.admin("DELETE", f"/admin/keys/{key['id']}")).good()
    (await room.admin("DELETE", path)).good()
    (await room.admin("GET", path)).refused(404)
