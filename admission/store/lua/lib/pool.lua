-- pool: what the pool allows (the service's settings, overridden by those an admin stored), how
-- many slots it has and how many are held.

-- A process without the service's settings (a clockwork of its own) takes those the service left
-- here; where none was yet, there are no slots.
local function given_policy()
  local given = cjson.decode(ARGV[2])
  if given.capacity then return given end
  local kept = redis.call("HGET", K.pool, "defaults")
  local policy = kept and cjson.decode(kept) or { capacity = 0 }
  policy.pool = given.pool
  return policy
end

local DEFAULTS, POLICY = given_policy(), given_policy()

local function read_policy()
  local stored = redis.call("HGETALL", K.pool)
  for i = 1, #stored, 2 do
    local name = string.match(stored[i], "^set:(.+)$")
    if name then POLICY[name] = cjson.decode(stored[i + 1]) end
  end
end
read_policy()

-- Counts look at scores, never at cardinality: what is past its deadline no longer counts,
-- whether or not a tick has come by.
local function live(key)
  return redis.call("ZCOUNT", key, string.format("(%.0f", NOW), "+inf")
end

-- Without those whose first use is overdue.
local function live_sessions()
  local n = live(K.sessions)
  local due = redis.call("ZRANGEBYSCORE", K.unused, "-inf", string.format("%.0f", NOW))
  for _, ticket in ipairs(due) do
    if (tonumber(redis.call("ZSCORE", K.sessions, ticket)) or 0) > NOW then n = n - 1 end
  end
  return n
end

-- With those who will be finishing once a script ends them: a batch may leave them for the next.
local function live_finishing()
  local n = live(K.finishing)
  local due = redis.call("ZRANGEBYSCORE", K.sessions,
    string.format("(%.0f", NOW - ANSWER_LEASE_MS), string.format("%.0f", NOW))
  for _, ticket in ipairs(due) do
    if answering_until(load_ticket(ticket)) > 0 then n = n + 1 end
  end
  return n
end

local function busy()
  return live(K.drafts) + live_sessions() + live_finishing()
end

local function ready_slots()
  local ids = redis.call("ZRANGEBYSCORE", K.ready, string.format("(%.0f", NOW), "+inf")
  local slots = 0
  for _, id in ipairs(ids) do
    local raw = redis.call("HGET", K.workers, id)
    if raw then slots = slots + cjson.decode(raw).slots end
  end
  return slots
end

local function capacity()
  if POLICY.capacity ~= "auto" then return POLICY.capacity end
  return math.min(POLICY.max_active, ready_slots() * POLICY.sessions_per_slot)
end

-- May anybody be admitted at all, were a slot free?
local function granting()
  return not POLICY.paused and (not POLICY.needs_worker or live(K.ready) > 0)
end

local function free_slots()
  if not granting() then return 0 end
  return math.max(0, capacity() - busy())
end

-- Place in the order of arrival: 4096 places inside each millisecond since 2025, never backwards,
-- exact in a double until the year 2094.
local EPOCH_MS = 1735689600000
local function next_score(head_start_ms)
  local clock = redis.call("HMGET", K.pool, "t_ms", "seq")
  local t_ms, seq = tonumber(clock[1]) or 0, tonumber(clock[2]) or 0
  if NOW > t_ms then t_ms, seq = NOW, 0 else seq = seq + 1 end
  if seq == 4096 then t_ms, seq = t_ms + 1, 0 end
  redis.call("HSET", K.pool, "t_ms", string.format("%.0f", t_ms), "seq", seq)
  return string.format("%.0f", (t_ms - EPOCH_MS - head_start_ms) * 4096 + seq)
end
