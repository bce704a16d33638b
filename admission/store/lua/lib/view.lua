-- view: a ticket as its owner sees it.

-- Can somebody who joins now still come before this one? By a longer head start, or in a request
-- pool by a greater weight.
local function may_be_passed(facts)
  local start, weight = facts.head_start_ms or 0, facts.weight or 1
  local function passes(class)
    if REQUESTS then return (class.weight or 1) > weight end
    return NOW < facts.joined_ms + (class.head_start_ms or 0) - start
  end
  for _, class in pairs(POLICY.priorities or {}) do
    if passes(class) then return true end
  end
  return passes(class_of("default"))
end

local function view(ticket, facts, state, deadline, reason)
  if not state then state, deadline, reason = state_of(ticket, facts) end
  local seen = {
    now_ms = NOW, ticket_id = ticket, user_id = facts.user, pool = POLICY.pool, status = state,
    queue_length = waiting_count(), joined_ms = facts.joined_ms,
    expires_ms = deadline, session_ms = POLICY.session_ms, reason = reason,
    priority = facts.priority or "default",
  }
  if state == "waiting" then
    seen.position = position_of(ticket, facts)
    seen.wait_ms, seen.wait_high_ms = estimate(seen.position)
    seen.may_be_passed = may_be_passed(facts)
  end
  return seen
end
