--[[
list - one page of who waits, in order; changes nothing.

ARGV
  now_ms  int   0 = Redis TIME
  policy  json  the pool's settings
  offset  int
  limit   int   at most 1000
RETURNS
  page  {items}  each {ticket_id, user_id, position, joined_ms}; absent when there is none
]]
local offset, limit = tonumber(ARGV[3]), math.min(tonumber(ARGV[4]), 1000)
local items = {}
for i, ticket in ipairs(redis.call("ZRANGE", K.queue, offset, offset + limit - 1)) do
  local facts = load_ticket(ticket)
  items[i] = { ticket_id = ticket, user_id = facts.user, position = offset + i,
    joined_ms = facts.joined_ms }
end
return reply("page", { items = #items > 0 and items or nil })
