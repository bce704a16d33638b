-- settle: what every script that moves tickets does: first end what is due, at the end offer what
-- is free. So joins and heartbeats move the queue even when no tick runs.

local BATCH = 100           -- due leases ended per script (DESIGN 4, invariant 4)
local IDLE_WARNING_MS = 60000

local function end_idle(ticket, facts)
  local since = facts.warned_ms and NOW - facts.warned_ms
  if answering_until(facts) > 0 then
    use(ticket, facts)
  elseif since and since >= IDLE_WARNING_MS and since < 2 * IDLE_WARNING_MS then
    return disconnect(ticket, facts, "active", "idle", NOW)
  else
    facts.warned_ms = NOW
    redis.call("ZADD", K.idle, NOW + IDLE_WARNING_MS, ticket)
    tell(facts.user, { status = "expiring_soon", remaining_time = IDLE_WARNING_MS / 1000,
      session_type = "active" })
  end
  save_ticket(ticket, facts)
end

local function forget(ticket, facts)
  redis.call("ZREM", K.ended, ticket)
  redis.call("HDEL", K.tickets, ticket)
  if redis.call("HGET", K.users, facts.user) == ticket then
    redis.call("HDEL", K.users, facts.user)
  end
end

local function end_with(from, reason)
  return function(ticket, facts, deadline) disconnect(ticket, facts, from, reason, deadline) end
end

local function finish(ticket, facts)
  redis.call("ZREM", K.finishing, ticket)
  log(ticket, facts, "finishing", "disconnected", facts.reason)
end

local DUTIES = {}
for _, ending in ipairs(ENDINGS) do
  DUTIES[#DUTIES + 1] = { ending.key, end_with(ending.from, ending.reason) }
end
DUTIES[#DUTIES + 1] = { K.finishing, finish }
DUTIES[#DUTIES + 1] = { K.presence, skip }
DUTIES[#DUTIES + 1] = { K.ended, forget }

local function end_due()
  local left = BATCH
  local function run(key, act)
    local due = redis.call("ZRANGEBYSCORE", key, "-inf", string.format("%.0f", NOW), "WITHSCORES",
      "LIMIT", 0, left)
    left = left - #due / 2
    for i = 1, #due, 2 do act(due[i], load_ticket(due[i]), tonumber(due[i + 1])) end
  end
  for _, duty in ipairs(DUTIES) do
    if left > 0 then run(duty[1], duty[2]) end
  end
  -- An idle session is only ever ended for somebody who waits.
  if left > 0 and redis.call("ZCARD", K.queue) > 0 then run(K.idle, end_idle) end
end

-- Who is due, but beyond this script's batch, is ended or skipped on the way.
local function offer_free()
  local overdue = 0
  while free_slots() > 0 and overdue < BATCH do
    local ticket = redis.call("ZRANGE", K.queue, 0, 0)[1]
    if not ticket then return end
    local facts = load_ticket(ticket)
    local _, _, reason, ended_ms, from = state_of(ticket, facts)
    local present = tonumber(redis.call("ZSCORE", K.presence, ticket))
    if from then
      disconnect(ticket, facts, from, reason, ended_ms)
      overdue = overdue + 1
    elseif present and present <= NOW then
      skip(ticket, facts)
      overdue = overdue + 1
    else
      if present and facts.auto_confirm then
        activate(ticket, facts, "waiting")
      else
        draft(ticket, facts)
      end
    end
  end
end

-- The user's latest ticket, its facts and state, ended first if it is due; nil when unknown.
local function latest(user)
  local ticket = redis.call("HGET", K.users, user)
  local facts = load_ticket(ticket)
  if not facts then return nil end
  local state, _, reason, ended_ms, from = state_of(ticket, facts)
  if from then
    disconnect(ticket, facts, from, reason, ended_ms)
    return latest(user)
  end
  if not readable(ended_ms) then return nil end
  return ticket, facts, state
end
