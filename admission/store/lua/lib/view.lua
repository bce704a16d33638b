-- view: a ticket as its owner sees it, and where it stands.

local function position_of(facts)
  return 1 + redis.call("ZCOUNT", K.queue, "-inf", "(" .. facts.score)
end

local function view(ticket, facts)
  local state, deadline, reason = state_of(ticket, facts)
  local seen = {
    now_ms = NOW, ticket_id = ticket, user_id = facts.user, pool = POLICY.pool, status = state,
    queue_length = redis.call("ZCARD", K.queue), joined_ms = facts.joined_ms,
    expires_ms = deadline, session_ms = POLICY.session_ms, reason = reason,
  }
  if state == "waiting" then
    seen.position = position_of(facts)
    seen.wait_ms, seen.wait_high_ms = estimate(seen.position)
  end
  return seen
end

local function seconds(ms)
  return ms and math.ceil(ms / 1000) or cjson.null
end

local function tell_position(ticket, facts, position)
  local wait_ms = estimate(position)
  redis.call("HSET", K.told, ticket, position)
  tell(facts.user, { status = "waiting", position = position, estimated_wait = seconds(wait_ms) })
end
