-- offer: waiting -> draft. A slot is reserved until it is confirmed or the draft is over.

-- How long a ticket had had its draft at `ms`; never less than nothing, though an admin may have
-- changed the drafts' length since.
local function drafted_for(ticket, ms)
  local deadline = tonumber(redis.call("ZSCORE", K.drafts, ticket))
  return math.max(0, ms - (deadline - POLICY.draft_ms))
end

local function offer(ticket, facts)
  local deadline = NOW + POLICY.draft_ms
  learn_wait("served")
  dequeue(ticket, facts, "served")
  redis.call("ZADD", K.drafts, deadline, ticket)
  redis.call("HSET", K.told, ticket, exact(NOW))
  log(ticket, facts, "waiting", "draft")
  tell_slot(facts.user, deadline)
end
