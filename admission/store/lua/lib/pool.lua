-- pool: what the pool allows (the service's settings, overridden by those an admin stored), how
-- many slots it has and how many are held.

local KEPT = redis.call("HMGET", K.pool, "settings", "defaults")

-- A process without the service's settings (a clockwork of its own) takes those the service left
-- here; where none was yet, there are no slots, and it only ends what is due.
local function given_policy()
  local given = cjson.decode(ARGV[2])
  if given.capacity then return given end
  local policy = KEPT[2] and cjson.decode(KEPT[2])
    or { capacity = 0, draft_ms = 300000, idle_ms = 300000 }
  policy.pool = given.pool
  return policy
end

local POLICY = given_policy()
local SETTINGS = KEPT[1] and cjson.decode(KEPT[1]) or {} -- an admin's
for name, value in pairs(SETTINGS) do POLICY[name] = value end

local REQUESTS = POLICY.kind == "request" -- a slot for one request, not for a session

-- A class of priority: {head_start_ms, weight}; nil when the pool has no such class.
local function class_of(name)
  local class = (POLICY.priorities or {})[name]
  return class or (name == "default" and { head_start_ms = 0, weight = 1 }) or nil
end

-- The service's own settings, for processes that have none.
local function keep_defaults()
  redis.call("HSET", K.pool, "defaults", cjson.encode(given_policy()))
end

-- Keep a setting, which wins over the service's own; null gives it back.
local function keep_setting(name, value)
  if value == cjson.null then
    SETTINGS[name], POLICY[name] = nil, given_policy()[name]
  else
    SETTINGS[name], POLICY[name] = value, value
  end
  redis.call("HSET", K.pool, "settings", cjson.encode(SETTINGS))
  keep_defaults() -- a pool may begin with one setting
end

-- Counts look at scores, never at cardinality: what is past its deadline no longer counts,
-- whether or not a tick has come by.
local AFTER_NOW = "(" .. exact(NOW)
local function live(key)
  return redis.call("ZCOUNT", key, AFTER_NOW, "+inf")
end

-- Without those whose first use is overdue.
local function live_sessions()
  local n = live(K.sessions)
  local due = redis.call("ZRANGEBYSCORE", K.unused, "-inf", exact(NOW))
  for _, ticket in ipairs(due) do
    if (tonumber(redis.call("ZSCORE", K.sessions, ticket)) or 0) > NOW then n = n - 1 end
  end
  return n
end

-- With those who will be finishing once a script ends them: a batch may leave them for the next.
local function live_finishing()
  local n = live(K.finishing)
  local due = redis.call("ZRANGEBYSCORE", K.sessions,
    "(" .. exact(NOW - ANSWER_LEASE_MS), exact(NOW))
  for _, ticket in ipairs(due) do
    if answering_until(load_ticket(ticket)) > 0 then n = n + 1 end
  end
  return n
end

local function busy()
  return live(K.drafts) + live_sessions() + live_finishing()
end

-- Read once: a script that changes workers asks only after it has.
local READY_SLOTS
local function ready_slots()
  if READY_SLOTS then return READY_SLOTS end
  READY_SLOTS = 0
  for _, id in ipairs(redis.call("ZRANGEBYSCORE", K.ready, AFTER_NOW, "+inf")) do
    local raw = redis.call("HGET", K.workers, id)
    if raw then READY_SLOTS = READY_SLOTS + cjson.decode(raw).slots end
  end
  return READY_SLOTS
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
