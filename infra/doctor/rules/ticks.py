"""What an admin sees of the scheduler."""

from infra.doctor import views
from infra.doctor.room import Room
from infra.doctor.rule import Rules, expect

rules = Rules()


@rules("GET /admin/ticks (holder, last run, last error): each tick has one holder or none.")
async def the_ticks_are_told(room: Room) -> None:
    reply = await room.admin("GET", "/admin/ticks")
    told = reply.good()["ticks"]
    for tick in told:
        views.check_view(reply.call, tick, views.TICK)
    names = [tick["name"] for tick in told]
    expect("each tick once", sorted(names), sorted(set(names)))
