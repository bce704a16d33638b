-- transitions: the arrows of the state diagram (DESIGN 4). Each moves a ticket between sets, logs
-- one line and tells the user.

local SKIPPED_MS = 600000  -- a lapsed place is kept this long (DESIGN 4, invariant 9)
local UNUSED_MS = 60000    -- an auto-confirmed session must be used by then (invariant 9)
local DEADLINE_REASONS = { session_timeout = true, draft_timeout = true, idle = true,
  queue_timeout = true, abandoned = true }

local function enqueue(ticket, facts)
  facts.joined_ms, facts.score = NOW, next_score(facts.head_start_ms)
  redis.call("ZADD", K.queue, facts.score, ticket)
  redis.call("HSET", K.users, facts.user, ticket)
  if POLICY.queue_timeout_ms then
    redis.call("ZADD", K.timeouts, NOW + POLICY.queue_timeout_ms, ticket)
  end
  save_ticket(ticket, facts)
  log(ticket, facts, nil, "waiting")
end

-- Presence keeps the place, and coming back restores it; who said "I will return" needs none.
local function attach(ticket, facts)
  if redis.call("ZREM", K.skipped, ticket) == 1 then
    redis.call("ZADD", K.queue, facts.score, ticket)
    log(ticket, facts, "skipped", "waiting")
  end
  if not facts.will_return then
    redis.call("ZADD", K.presence, NOW + POLICY.grace_ms, ticket)
  end
end

local function skip(ticket, facts)
  redis.call("ZREM", K.queue, ticket)
  redis.call("ZREM", K.presence, ticket)
  redis.call("ZADD", K.skipped, NOW + SKIPPED_MS, ticket)
  log(ticket, facts, "waiting", "skipped")
end

local function leave_queue(ticket)
  for _, key in ipairs({ K.queue, K.skipped, K.presence, K.timeouts }) do
    redis.call("ZREM", key, ticket)
  end
  redis.call("HDEL", K.told, ticket)
end

local function use(ticket, facts)
  facts.warned_ms = nil
  redis.call("ZREM", K.unused, ticket)
  redis.call("ZADD", K.idle, NOW + POLICY.idle_ms, ticket)
end

-- The facts of an ended ticket while its last answer runs, without what lapsed; else nil.
local function load_finishing(ticket)
  local deadline = ticket and tonumber(redis.call("ZSCORE", K.finishing, ticket))
  if not deadline or deadline <= NOW then return nil end
  local facts = load_ticket(ticket)
  answering_until(facts)
  return facts
end

-- Nobody holds two slots: answers that outlived the user's last session go on in the new one.
local function take_over(facts)
  local before = load_finishing(facts.previous)
  if not before then return end
  redis.call("ZREM", K.finishing, facts.previous)
  for id, deadline in pairs(before.uses) do facts.uses[id] = deadline end
  for id, deadline in pairs(before.answers) do facts.answers[id] = deadline end
end

local function activate(ticket, facts, from)
  local deadline = NOW + POLICY.session_ms
  leave_queue(ticket)
  redis.call("ZREM", K.drafts, ticket)
  redis.call("HDEL", K.told, "soon:" .. ticket) -- the draft's reminder is not the session's
  redis.call("ZADD", K.sessions, deadline, ticket)
  redis.call("ZADD", K.idle, NOW + POLICY.idle_ms, ticket)
  if from == "waiting" and POLICY.session_ms > UNUSED_MS then
    redis.call("ZADD", K.unused, NOW + UNUSED_MS, ticket)
  end
  facts.started_ms = NOW
  take_over(facts)
  save_ticket(ticket, facts)
  redis.call("HINCRBY", K.pool, "admitted_total", 1)
  redis.call("LPUSH", K.waits, NOW - facts.joined_ms)
  redis.call("LTRIM", K.waits, 0, 199)
  log(ticket, facts, from, "active")
  tell(facts.user, { status = "connected", session_duration = math.ceil(POLICY.session_ms / 1000),
    expires_at = iso(deadline) })
end

local function draft(ticket, facts)
  local deadline = NOW + POLICY.draft_ms
  leave_queue(ticket)
  redis.call("ZADD", K.drafts, deadline, ticket)
  redis.call("HSET", K.told, ticket, string.format("%.0f", NOW))
  log(ticket, facts, "waiting", "draft")
  tell_slot(facts.user, deadline)
end

-- How long sessions lately lasted: an exponential mean over about the last ten. Until they are
-- known they last as long as they may: one who leaves at once must not promise speed to all.
local function learn_life(life_ms)
  local known = tonumber(redis.call("HGET", K.pool, "life_ms")) or POLICY.session_ms
  redis.call("HSET", K.pool, "life_ms", string.format("%.0f", known + (life_ms - known) / 10))
end

-- While its last answer runs, the slot of an ended session stays taken.
local function start_finishing(ticket, facts, ended_ms)
  local lease = answering_until(facts)
  facts.finish_ms = ended_ms + FINISHING_MS
  lease = math.min(lease, facts.finish_ms)
  if lease > NOW then redis.call("ZADD", K.finishing, lease, ticket) end
end

local function keep_finishing(ticket, facts)
  save_ticket(ticket, facts)
  redis.call("ZADD", K.finishing, math.min(NOW + ANSWER_LEASE_MS, facts.finish_ms), ticket)
end

-- The ended ticket of this user whose answer may still run: this one, or the one before it.
local function last_answering(ticket, facts)
  return load_finishing(ticket) and ticket or facts and facts.previous
end

-- A new ticket behind all others, for who did not ask for it and so may be gone. Its id follows
-- from the first one's: scripts take nothing at random.
local function requeue(ticket, facts)
  local again = { user = facts.user, head_start_ms = facts.head_start_ms, will_return = true,
    model = facts.model, clients = {}, uses = {}, answers = {},
    previous = last_answering(ticket, facts), first = facts.first or ticket,
    round = (facts.round or 1) + 1 }
  enqueue(again.first .. "-" .. again.round, again)
  return position_of(again)
end

-- End a ticket that has not ended yet; `ended_ms` is its deadline or now.
local function disconnect(ticket, facts, from, reason, ended_ms)
  leave_queue(ticket)
  for _, key in ipairs({ K.drafts, K.sessions, K.unused, K.idle }) do
    redis.call("ZREM", key, ticket)
  end
  redis.call("HDEL", K.told, "soon:" .. ticket)
  facts.ended_ms, facts.reason = ended_ms, reason
  if from == "active" then
    learn_life(ended_ms - facts.started_ms)
    start_finishing(ticket, facts, ended_ms)
  end
  redis.call("ZADD", K.ended, ended_ms + READABLE_MS, ticket)
  save_ticket(ticket, facts)
  log(ticket, facts, from, "disconnected", reason)
  if reason == "abandoned" then redis.call("HINCRBY", K.pool, "abandoned_total", 1) end
  if DEADLINE_REASONS[reason] then
    redis.call("HINCRBY", K.pool, "expired_total", 1)
    tell(facts.user, { status = "expired", reason = reason })
  end
  local requeued = reason == "session_timeout" and POLICY.requeue and requeue(ticket, facts)
  tell(facts.user, { status = "disconnected", reason = reason,
    requeue_position = requeued or cjson.null })
end
