--[[
confirm - turn the user's draft into a session, once.

ARGV
  now_ms  int   0 = Redis TIME
  policy  json  the pool's settings
  user    str
  ticket  str   the draft's ticket, or '' for whichever the user has
RETURNS
  confirmed  view  draft -> active
  active     view  already confirmed: the same session
  waiting    view  no draft yet
  stale      view  `ticket` is not the user's current one
  ended      view  the ticket is over
  unknown    null
]]
local user, named = ARGV[3], ARGV[4]
end_due()
local ticket, facts, state = latest(user)
if not ticket then return reply("unknown") end
if named ~= "" and named ~= ticket then return reply("stale", view(ticket, facts)) end
local tags = { disconnected = "ended", waiting = "waiting", active = "active" }
local tag = tags[state] or "confirmed"
if tag == "confirmed" then activate(ticket, facts, "draft") end
offer_free()
return reply(tag, view(ticket, load_ticket(ticket)))
