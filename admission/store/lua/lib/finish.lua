-- finish: what an ended session's last answer may still do. Its slot stays taken, as a lease that is
-- nobody's ticket, until the answer ends, at most 120 s (DESIGN 4, "What ends a turn").

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
  for _, map in ipairs({ "uses", "answers", "over" }) do
    for id, deadline in pairs(before[map]) do facts[map][id] = deadline end
  end
end

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

-- An answer has ended: the slot is kept for those that still run.
local function shorten_finishing(ticket, facts)
  if not facts.finish_ms then return end
  local lease = math.min(answering_until(facts), facts.finish_ms)
  if lease > NOW then
    redis.call("ZADD", K.finishing, "XX", lease, ticket)
  else
    redis.call("ZREM", K.finishing, ticket)
  end
end

-- The ended ticket of this user whose answer may still run: this one, or the one before it.
local function last_answering(ticket, facts)
  return load_finishing(ticket) and ticket or facts and facts.previous
end
