-- estimate: how long until a position is served, from the ends of what holds the slots now.
-- Every session has a hard end, so the high value is a bound while nothing unforeseen happens; the
-- value assumes that sessions last as long as they lately did.

local RELEASES -- {slots, expected = sorted ms from now, high = sorted ms from now, life = ms}

local function releases()
  if RELEASES then return RELEASES end
  local life = math.min(POLICY.session_ms,
    tonumber(redis.call("HGET", K.pool, "life_ms")) or POLICY.session_ms)
  local expected, high = {}, {}
  local function collect(key, likely, at_most)
    local held = redis.call("ZRANGEBYSCORE", key, string.format("(%.0f", NOW), "+inf", "WITHSCORES")
    for i = 2, #held, 2 do
      local left = tonumber(held[i]) - NOW
      expected[#expected + 1], high[#high + 1] = likely(left), at_most(left)
    end
  end
  local function same(left) return left end
  collect(K.sessions, function(left)
    -- older than usual already: half of what it may still take
    return math.max(left - (POLICY.session_ms - life), left / 2)
  end, same)
  collect(K.drafts, function() return life end, function(left) return left + POLICY.session_ms end)
  collect(K.finishing, same, same)
  table.sort(expected)
  table.sort(high)
  RELEASES = { slots = capacity(), expected = expected, high = high, life = life }
  return RELEASES
end

-- When `position` gets a slot: the first round of slots comes free as `ends` says, each further
-- round one turn later, and never before the last end of the round before it.
local function served(position, slots, ends, turn_ms)
  local round, i = math.floor((position - 1) / slots), (position - 1) % slots + 1 + #ends - slots
  local first = ends[i] or 0 -- a slot nobody holds
  if round == 0 then return first end
  return math.max(first, (ends[#ends] or 0) - turn_ms) + round * turn_ms
end

-- Milliseconds (value, high value) until `position` is offered a slot; nil when it cannot be known.
local function estimate(position)
  if not granting() then return nil end
  local r = releases()
  if r.slots < 1 then return nil end
  return served(position, r.slots, r.expected, r.life),
    served(position, r.slots, r.high, POLICY.session_ms)
end
