-- learn: what the pool's past tells of its future: how long sessions last, who confirms a draft and
-- when, how soon people lose patience, and how often the high value lately held.

local learned, learn_session, learn_draft, learn_wait, count_waiting, judge_promises, promise
do

local LIVES_MAX = 400     -- newest lives kept
local DRAFTS_MEMORY = 200 -- sums over drafts forget one part in this many at each
local WAITS_MEMORY = 400  -- so do those over waits
local SILENCE_MS = 15000  -- how much of a gap between two counts is counted as waiting
local HIGH_SHARE = 0.9    -- how often the high value is meant to hold
local Z = { first = 1.1, least = 0.5, most = 4, step = 0.03 } -- deviations above the mean
local PROMISE_EVERY_MS, PROMISES_MAX, JUDGED_MAX = 10000, 256, 20
local GOLDEN = 0.6180339887 -- its multiples, less the whole part, are spread evenly over 0 to 1

local LEARNED
learned = function()
  if LEARNED then return LEARNED end
  local kept = redis.call("HGET", K.forecast, "learned")
  LEARNED = kept and cmsgpack.unpack(kept) or { confirmed = 0, confirm_ms = 0, dropped = 0,
    dropped_ms = 0, gone = 0, waited_ms = 0, counted_ms = NOW, z = Z.first, promises = 0,
    promised_ms = 0 }
  return LEARNED
end

local function keep_learned()
  redis.call("HSET", K.forecast, "learned", cmsgpack.pack(LEARNED))
end

local function fade(sums, memory, ...)
  for _, name in ipairs({ ... }) do sums[name] = sums[name] * (1 - 1 / memory) end
end

-- A session ended that held its slot for `life_ms`.
learn_session = function(life_ms)
  redis.call("LPUSH", K.lives, exact(NOW) .. ":" .. exact(math.max(0, life_ms)))
  redis.call("LTRIM", K.lives, 0, LIVES_MAX - 1)
end

-- A draft was confirmed, or lost its slot, `took_ms` after the offer; (true, 0): without a draft.
learn_draft = function(confirmed, took_ms)
  local sums = learned()
  fade(sums, DRAFTS_MEMORY, "confirmed", "confirm_ms", "dropped", "dropped_ms")
  local number, time = "dropped", "dropped_ms"
  if confirmed then number, time = "confirmed", "confirm_ms" end
  sums[number], sums[time] = sums[number] + 1, sums[time] + took_ms
  keep_learned()
end

-- A waiting ticket was 'served', or is 'gone'.
learn_wait = function(outcome)
  local sums = learned()
  fade(sums, WAITS_MEMORY, "gone", "waited_ms")
  if outcome == "gone" then
    sums.gone = sums.gone + 1
  else
    redis.call("HINCRBY", K.forecast, "served", 1)
  end
  keep_learned()
end

-- Time that people spent waiting, which the number of those who went is held against.
count_waiting = function()
  local sums = learned()
  local passed = math.max(0, math.min(NOW - sums.counted_ms, SILENCE_MS))
  sums.waited_ms, sums.counted_ms = sums.waited_ms + waiting_count() * passed, NOW
  keep_learned()
end

-- Remember, of somebody who waits, by when the high value says they are served: each time at
-- another part of the queue. `high_of` gives a position's high value in ms.
promise = function(high_of)
  local sums = learned()
  if NOW - sums.promised_ms < PROMISE_EVERY_MS then return end
  if redis.call("ZCARD", K.promises) >= PROMISES_MAX then return end
  sums.promised_ms, sums.promises = NOW, (sums.promises + GOLDEN) % 1
  local rank = math.floor(sums.promises * redis.call("ZCARD", K.queue))
  local ticket = redis.call("ZRANGE", K.queue, rank, rank)[1]
  if ticket then redis.call("ZADD", K.promises, "NX", exact(NOW + high_of(rank + 1)), ticket) end
end

-- Each promise that failed widens the high value nine times as much as one that held narrows it, so
-- it comes to rest where nine in ten hold. Who went by themselves proves nothing.
judge_promises = function()
  local due = redis.call("ZRANGEBYSCORE", K.promises, "-inf", exact(NOW), "LIMIT", 0, JUDGED_MAX)
  for _, ticket in ipairs(due) do
    local facts = load_ticket(ticket)
    local failed = redis.call("ZSCORE", K.queue, ticket)
    local held = facts and (facts.started_ms or facts.reason == "draft_timeout"
      or redis.call("ZSCORE", K.drafts, ticket))
    if failed or held then
      local sums = learned()
      sums.z = sums.z + Z.step * ((failed and 1 or 0) - (1 - HIGH_SHARE))
      sums.z = math.max(Z.least, math.min(Z.most, sums.z))
    end
    redis.call("ZREM", K.promises, ticket)
  end
end

end
