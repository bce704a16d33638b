--[[
cancel - an admin's word: end the user's turn and cut the answers that still run.

ARGV
  now_ms  int   0 = Redis TIME
  policy  json  the pool's settings
  user    str
  ticket  str   '' or the ticket meant; without one, all of the user's requests in a request pool
RETURNS
  cancelled  {previous, status}  the states before and after
  unknown    null
]]
local user, named = ARGV[3], ARGV[4]
end_due()
local ticket, facts, state = latest(user, named)
if not ticket or (named ~= "" and named ~= ticket) then return unknown() end
if state ~= "disconnected" then disconnect(ticket, facts, state, "removed", NOW) end
if REQUESTS and named == "" then end_all_of(user, "removed") end
for _, over in ipairs({ ticket, facts.previous }) do
  local left = load_ticket(over)
  if redis.call("ZREM", K.finishing, over) == 1 then log(over, left, "finishing", "disconnected") end
end
offer_free()
return reply("cancelled", { previous = state, status = "disconnected" })
