--[[
remind - one step of a pass over those who hold a slot: repeat open drafts, warn of drafts and
sessions that end soon.

ARGV
  now_ms  int   0 = Redis TIME
  policy  json  the pool's settings
  cursor  str   '' begins a pass; else from the reply before
  limit   int   how many tickets one step looks at
RETURNS
  reminded  {told, cursor}  how many messages were published; cursor: absent at the pass' end
]]
local cursor, limit = ARGV[3], tonumber(ARGV[4])
local DRAFT_EVERY_MS, SOON_MS = 5000, 60000
local told = 0

local function repeat_draft(ticket, deadline)
  local said = tonumber(redis.call("HGET", K.told, ticket)) or 0
  if math.abs(NOW - said) < DRAFT_EVERY_MS then return end -- a clock may go back in a failover
  redis.call("HSET", K.told, ticket, string.format("%.0f", NOW))
  tell_slot(load_ticket(ticket).user, deadline)
  told = told + 1
end

local function warn_of_the_end(ticket, deadline, session_type)
  if deadline > NOW + SOON_MS then return end
  if redis.call("HSETNX", K.told, "soon:" .. ticket, session_type) == 0 then return end
  tell(load_ticket(ticket).user, { status = "expiring_soon", session_type = session_type,
    remaining_time = math.ceil((deadline - NOW) / 1000) })
  told = told + 1
end

-- Those that end after now and until `upto`, from the `at`th on; where to go on, if there are more.
local function look_at(key, upto, at, act)
  local held = redis.call("ZRANGEBYSCORE", key, string.format("(%.0f", NOW), upto, "WITHSCORES",
    "LIMIT", at, limit)
  for i = 1, #held, 2 do act(held[i], tonumber(held[i + 1])) end
  return #held == 2 * limit and at + limit or nil
end

end_due()
offer_free()
local kind, at = string.match(cursor, "^(%a+) (%d+)$")
if kind ~= "active" then
  at = look_at(K.drafts, "+inf", tonumber(at or 0), function(ticket, deadline)
    repeat_draft(ticket, deadline)
    warn_of_the_end(ticket, deadline, "draft")
  end)
  if at then return reply("reminded", { told = told, cursor = "draft " .. at }) end
end
at = look_at(K.sessions, string.format("%.0f", NOW + SOON_MS), tonumber(at or 0),
  function(ticket, deadline) warn_of_the_end(ticket, deadline, "active") end)
return reply("reminded", { told = told, cursor = at and "active " .. at or nil })
