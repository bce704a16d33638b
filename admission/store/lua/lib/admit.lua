-- admit: waiting -> active (present and auto_confirm) and draft -> active (confirmed). The session,
-- or in a request pool the lease, has its hard end from the first moment.

local UNUSED_MS = 60000 -- an auto-confirmed session must be used by then (DESIGN 4, invariant 9)

-- A session is used by a request or an answer; a request pool's lease by its heartbeat.
local function use(ticket, facts)
  if REQUESTS then
    redis.call("ZADD", K.unused, NOW + POLICY.lease_ms, ticket)
    return
  end
  facts.warned_ms = nil
  redis.call("ZREM", K.unused, ticket)
  redis.call("ZADD", K.idle, NOW + POLICY.idle_ms, ticket)
end

local function out_of_waiting(ticket, facts, from)
  if from == "draft" then
    learn_draft(true, drafted_for(ticket, NOW))
    redis.call("ZREM", K.drafts, ticket)
    redis.call("HDEL", K.told, ticket, "soon:" .. ticket) -- the session has its own reminder
  else
    learn_draft(true, 0)
    learn_wait("served")
    dequeue(ticket, facts, "served")
  end
end

local function admit(ticket, facts, from)
  local deadline = NOW + POLICY.session_ms
  out_of_waiting(ticket, facts, from)
  redis.call("ZADD", K.sessions, deadline, ticket)
  use(ticket, facts)
  if from == "waiting" and not REQUESTS and POLICY.session_ms > UNUSED_MS then
    redis.call("ZADD", K.unused, NOW + UNUSED_MS, ticket)
  end
  facts.started_ms = NOW
  take_over(facts)
  save_ticket(ticket, facts)
  redis.call("HINCRBY", K.pool, "admitted_total", 1)
  redis.call("LPUSH", K.waits, math.max(0, NOW - facts.joined_ms)) -- by two hosts' clocks, perhaps
  redis.call("LTRIM", K.waits, 0, 199)
  log(ticket, facts, from, "active")
  tell(facts.user, { status = "connected", session_duration = math.ceil(POLICY.session_ms / 1000),
    expires_at = iso(deadline) })
end
