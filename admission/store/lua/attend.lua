--[[
attend - renew the presence of many waiting tickets in one call; who was skipped is back.

ARGV
  now_ms   int   0 = Redis TIME
  policy   json  the pool's settings
  tickets  json  a list of tickets, at most 1000
RETURNS
  attended  null
]]
local tickets = cjson.decode(ARGV[3])
local deadline = exact(NOW + POLICY.grace_ms)
-- First: this call says that they are here, so it must not be the one that skips them.
local renewed, others = {}, {}
for i, present in ipairs(redis.call("ZMSCORE", K.presence, unpack(tickets))) do
  if present then
    renewed[#renewed + 1], renewed[#renewed + 2] = deadline, tickets[i]
  else
    others[#others + 1] = tickets[i]
  end
end
if #renewed > 0 then redis.call("ZADD", K.presence, unpack(renewed)) end
end_due()
for _, ticket in ipairs(others) do
  local facts = load_ticket(ticket)
  if facts and state_of(ticket, facts) == "waiting" then attach(ticket, facts) end
end
offer_free()
return reply("attended")
