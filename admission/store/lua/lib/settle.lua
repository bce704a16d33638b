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
  for _, claim in ipairs({ facts.user, claim_of(facts.user, facts.request or "") }) do
    if redis.call("HGET", K.users, claim) == ticket then redis.call("HDEL", K.users, claim) end
  end
end

-- Another of its deadlines may have come before the one by which it was found.
local function end_as_due(ticket, facts)
  local _, _, reason, ended_ms, from = state_of(ticket, facts)
  disconnect(ticket, facts, from, reason, ended_ms)
end

local function finish(ticket, facts)
  redis.call("ZREM", K.finishing, ticket)
  log(ticket, facts, "finishing", "disconnected", facts.reason)
end

local function end_due()
  local left, now = BATCH, exact(NOW)
  local function run(key, act)
    if left == 0 then return end
    local due = redis.call("ZRANGEBYSCORE", key, "-inf", now, "LIMIT", 0, left)
    left = left - #due
    for _, ticket in ipairs(due) do act(ticket, load_ticket(ticket)) end
  end
  for _, ending in ipairs(ENDINGS) do run(ending.key, end_as_due) end
  run(K.finishing, finish)
  run(K.presence, skip)
  run(K.ended, forget)
  -- An idle session is only ever ended for somebody who waits.
  if redis.call("ZCARD", K.queue) > 0 then run(K.idle, end_idle) end
end

-- Who is due, but beyond this script's batch, is ended or skipped on the way.
local function offer_slots()
  local overdue, free = 0, free_slots()
  while free > 0 and overdue < BATCH do
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
        admit(ticket, facts, "waiting")
      else
        offer(ticket, facts)
      end
      free = free - 1
      -- Counted again at the end, not each time: who is admitted may take a finishing slot over.
      if free == 0 then free = free_slots() end
    end
  end
end

local function offer_free()
  offer_slots()
  renew_forecast()
end

-- Does anybody wait or hold a slot?
local function occupied()
  return waiting_count() + redis.call("ZCARD", K.skipped) + busy() > 0
end

-- A ticket, its facts and state, ended first if it is due; nil when it is unknown or another's.
local function settled(ticket, user)
  local facts = load_ticket(ticket)
  if not facts or facts.user ~= user then return nil end
  local state, _, reason, ended_ms, from = state_of(ticket, facts)
  if from then
    disconnect(ticket, facts, from, reason, ended_ms)
    return settled(REQUESTS and ticket or redis.call("HGET", K.users, user), user)
  end
  if not readable(ended_ms) then return nil end
  return ticket, facts, state
end

local function latest(user, named)
  return settled(meant_by(user, named), user)
end

-- Nobody by that name. What ended on the way is still passed on (DESIGN 4, invariant 5).
local function unknown()
  offer_free()
  return reply("unknown")
end

local ALL_OF_MAX = 1000 -- requests of one user that one script ends

-- Everything one user has in a request pool.
local function end_all_of(user, reason)
  local lane, tickets = load_lane(user), some_of(K.backlog, user, ALL_OF_MAX)
  for _, ticket in ipairs(some_of(K.aside, user, ALL_OF_MAX - #tickets)) do
    tickets[#tickets + 1] = ticket
  end
  tickets[#tickets + 1] = lane.head
  for ticket in pairs(lane.running) do tickets[#tickets + 1] = ticket end
  for _, ticket in ipairs(tickets) do
    local _, facts, state = settled(ticket, user)
    if facts and state ~= "disconnected" then disconnect(ticket, facts, state, reason, NOW) end
  end
end
