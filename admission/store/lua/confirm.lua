--[[
confirm - turn a draft into a session, or a request pool's lease, once.

ARGV
  now_ms  int   0 = Redis TIME
  policy  json  the pool's settings
  user    str
  ticket  str   the draft's ticket, or '' for the user's latest
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
local ticket, facts, state = latest(user, named)
if not ticket then return unknown() end
if named ~= "" and named ~= ticket then
  offer_free()
  return reply("stale", view(ticket, facts))
end
local tags = { disconnected = "ended", waiting = "waiting", active = "active" }
local tag = tags[state] or "confirmed"
if tag == "confirmed" then admit(ticket, facts, "draft") end
offer_free()
return reply(tag, view(ticket, load_ticket(ticket)))
