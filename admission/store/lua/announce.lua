--[[
announce - one step of a pass over those who wait: tell each attached ticket, and the first 1,000, a
place that is news.

ARGV
  now_ms   int   0 = Redis TIME
  policy   json  the pool's settings
  cursor   str   '' begins a pass; else from the reply before
  limit    int   about how many tickets one step looks at, at most 1000
  pace_ms  int   a pass that would begin sooner after the last one does not
RETURNS
  announced  {told, cursor}  how many messages were published; cursor: absent at the pass' end
  early      null            the last pass began too short a while ago
]]
local cursor, limit, pace_ms = ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local slots_changed, told, kept = false, 0, {}
local pool -- as it is once who was due has ended

local function begin_pass()
  local last = redis.call("HMGET", K.pool, "pass_ms", "pass_slots")
  -- The distance, also here: after a failover the clock may be another host's, and behind.
  if math.abs(NOW - (tonumber(last[1]) or 0)) < pace_ms then return false end
  local slots = pool.slots + coming_slots()
  redis.call("HSET", K.pool, "pass_ms", exact(NOW), "pass_slots", slots)
  slots_changed = last[2] and tonumber(last[2]) ~= slots
  if slots_changed then places_changed() end
  return true
end

local function tell_news(ticket, position, last)
  local wait_ms = estimate(position, pool)
  local news, because = news_in(last, position, wait_ms, slots_changed)
  if not news then return end
  kept[#kept + 1], kept[#kept + 2] = ticket, remember(position, wait_ms)
  say_position(load_ticket(ticket), position, wait_ms, because)
  told = told + 1
end

local function first(from)
  local tickets = redis.call("ZRANGE", K.queue, from, math.min(from + limit, TOLD_FIRST) - 1)
  local last = #tickets > 0 and redis.call("HMGET", K.told, unpack(tickets))
  for i, ticket in ipairs(tickets) do tell_news(ticket, from + i, last[i]) end
  local to = from + #tickets
  if to < math.min(TOLD_FIRST, redis.call("ZCARD", K.queue)) then return "first " .. to end
  return waiting_count() > to and "scan 0" or nil
end

-- Not among the first. A scan meets each that stays, however presence is renewed meanwhile.
local function attached(at)
  local found = redis.call("ZSCAN", K.presence, at, "COUNT", limit)
  local tickets = {}
  for i = 1, #found[2], 2 do tickets[#tickets + 1] = found[2][i] end
  local last = #tickets > 0 and redis.call("HMGET", K.told, unpack(tickets))
  for i, ticket in ipairs(tickets) do
    local rank = redis.call("ZRANK", K.queue, ticket)
    local position = not (rank and rank < TOLD_FIRST) and place_of(ticket)
    if position then tell_news(ticket, position, last[i]) end
  end
  return found[1] ~= "0" and "scan " .. found[1] or nil
end

end_due()
offer_free()
pool = pool_now()
local phase, at, changed = string.match(cursor, "^(%a+) (%d+)(!?)$")
if phase then slots_changed = changed == "!" elseif not begin_pass() then return reply("early") end
local go_on
if phase == "scan" then go_on = attached(at) else go_on = first(tonumber(at or 0)) end
if #kept > 0 then redis.call("HSET", K.told, unpack(kept)) end
return reply("announced", { told = told,
  cursor = go_on and go_on .. (slots_changed and "!" or "") or nil })
