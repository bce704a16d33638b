-- enqueue: (none) -> waiting. A new ticket at the end of the order.

local function claim_of(user, request)
  return request ~= "" and user .. " " .. request or user
end

local function enqueue(ticket, facts)
  facts.joined_ms = NOW
  redis.call("HSET", K.users, facts.user, ticket)
  if facts.request then
    redis.call("HSET", K.users, claim_of(facts.user, facts.request), ticket)
  end
  if POLICY.queue_timeout_ms then
    redis.call("ZADD", K.timeouts, NOW + POLICY.queue_timeout_ms, ticket)
  end
  line_up(ticket, facts)
  save_ticket(ticket, facts)
  log(ticket, facts, nil, "waiting")
end

-- Out of every set of those who wait.
local function dequeue(ticket, facts, why)
  step_out(ticket, facts, why)
  for _, key in ipairs({ K.skipped, K.presence, K.timeouts }) do redis.call("ZREM", key, ticket) end
  redis.call("HDEL", K.told, ticket)
end
