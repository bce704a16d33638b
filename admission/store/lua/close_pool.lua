--[[
close_pool - end everybody's turn in a pool that is given up, some at a time, and then forget it.

ARGV
  now_ms  int   0 = Redis TIME
  policy  json  the pool's settings
RETURNS
  closing  null  call again: there are more
  closed   null  nothing is left of it
  staffed  null  a worker still serves it, so it stays
]]
for _, raw in ipairs(redis.call("HVALS", K.workers)) do
  if not cjson.decode(raw).revoked then return reply("staffed") end
end
keep_setting("paused", true)
local left = BATCH
for _, key in ipairs({ K.queue, K.skipped, K.drafts, K.sessions }) do
  local tickets = left > 0 and redis.call("ZRANGE", key, 0, left - 1) or {}
  left = left - #tickets
  for _, ticket in ipairs(tickets) do
    local facts = load_ticket(ticket)
    local state, _, _, _, from = state_of(ticket, facts)
    disconnect(ticket, facts, from or state, "pool_closed", NOW)
  end
end
-- Of a request pool each pass brings the users' next requests forward.
if left < BATCH then return reply("closing") end
for _, key in pairs(K) do redis.call("UNLINK", key) end
return reply("closed")
