--[[
announce - tell each attached ticket, and the first 1,000 who wait, a position that changed; repeat
open drafts; warn of sessions and drafts that end soon.

ARGV
  now_ms  int   0 = Redis TIME
  policy  json  the pool's settings
RETURNS
  announced  {told}  how many messages were published
]]
local FIRST = 1000        -- told without being attached (DESIGN 6)
local DRAFT_EVERY_MS = 5000
local SOON_MS = 60000
local told = 0

local function tell_if_moved(ticket, position, last)
  if tonumber(last) == position then return end
  tell_position(ticket, load_ticket(ticket), position)
  told = told + 1
end

local function announce_positions()
  local tickets = redis.call("ZRANGE", K.queue, 0, FIRST - 1)
  if #tickets == 0 then return end
  local last = redis.call("HMGET", K.told, unpack(tickets))
  for i, ticket in ipairs(tickets) do tell_if_moved(ticket, i, last[i]) end
  if #tickets < FIRST then return end
  for _, ticket in ipairs(redis.call("ZRANGE", K.presence, 0, -1)) do
    local rank = redis.call("ZRANK", K.queue, ticket)
    if rank and rank >= FIRST then
      tell_if_moved(ticket, rank + 1, redis.call("HGET", K.told, ticket))
    end
  end
end

local function repeat_drafts()
  local drafts = redis.call("ZRANGEBYSCORE", K.drafts, string.format("(%.0f", NOW), "+inf",
    "WITHSCORES")
  for i = 1, #drafts, 2 do
    local said = tonumber(redis.call("HGET", K.told, drafts[i])) or 0
    if NOW - said >= DRAFT_EVERY_MS then
      redis.call("HSET", K.told, drafts[i], string.format("%.0f", NOW))
      tell_slot(load_ticket(drafts[i]).user, tonumber(drafts[i + 1]))
      told = told + 1
    end
  end
end

local function warn_of_the_end(key, session_type)
  local soon = redis.call("ZRANGEBYSCORE", key, string.format("(%.0f", NOW),
    string.format("%.0f", NOW + SOON_MS), "WITHSCORES")
  for i = 1, #soon, 2 do
    if redis.call("HSETNX", K.told, "soon:" .. soon[i], session_type) == 1 then
      tell(load_ticket(soon[i]).user, { status = "expiring_soon", session_type = session_type,
        remaining_time = math.ceil((tonumber(soon[i + 1]) - NOW) / 1000) })
      told = told + 1
    end
  end
end

announce_positions()
repeat_drafts()
warn_of_the_end(K.sessions, "active")
warn_of_the_end(K.drafts, "draft")
return reply("announced", { told = told })
