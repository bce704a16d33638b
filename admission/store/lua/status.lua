--[[
status - read the user's ticket; changes nothing.

ARGV
  now_ms  int   0 = Redis TIME
  policy  json  the pool's settings
  user    str
RETURNS
  ticket   view
  unknown  null
]]
local user = ARGV[3]
local ticket = redis.call("HGET", K.users, user)
local facts = load_ticket(ticket)
if not facts then return reply("unknown") end
local _, _, _, ended_ms = state_of(ticket, facts)
if not readable(ended_ms) then return reply("unknown") end
return reply("ticket", view(ticket, facts))
