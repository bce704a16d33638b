--[[
list - one page of who waits, in order; a request pool's later requests follow, user by user.
Changes nothing.

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

local function add(ticket)
  local facts = load_ticket(ticket)
  items[#items + 1] = { ticket_id = ticket, user_id = facts.user,
    position = position_of(ticket, facts), joined_ms = facts.joined_ms }
end

if limit > 0 then
  local first = redis.call("ZRANGE", K.queue, offset, offset + limit - 1)
  for _, ticket in ipairs(first) do add(ticket) end
  local skip_ahead = math.max(0, offset - redis.call("ZCARD", K.queue))
  local later = #first < limit
    and redis.call("ZRANGE", K.backlog, skip_ahead, skip_ahead + limit - #first - 1) or {}
  for _, member in ipairs(later) do add(string.match(member, " (.+)$")) end
end
return reply("page", { items = #items > 0 and items or nil })
