--[[
status - read the user's latest ticket, or the one that is named; changes nothing.

ARGV
  now_ms  int   0 = Redis TIME
  policy  json  the pool's settings
  user    str
  ticket  str   '' or the id of one of the user's, in a request pool
RETURNS
  ticket   view
  unknown  null
USES
  clock ticket pool order publish learn lives forecast curve coming estimate
  view
]]
local user, named = ARGV[3], ARGV[4]
local ticket = meant_by(user, named)
local facts = load_ticket(ticket)
if not facts or facts.user ~= user then return reply("unknown") end
local state, deadline, reason, ended_ms = state_of(ticket, facts)
if not readable(ended_ms) then return reply("unknown") end
return reply("ticket", view(ticket, facts, state, deadline, reason))
