-- disconnect: any state -> disconnected, for a reason; and with VESTIBULE_REQUEUE a session that ran
-- out -> waiting again.

local DEADLINE_REASONS = { session_timeout = true, draft_timeout = true, idle = true,
  queue_timeout = true, abandoned = true }

-- A new ticket behind all others, for who did not ask for it and so may be gone. Its id follows
-- from the first one's: scripts take nothing at random.
local function requeue(ticket, facts)
  local again = { user = facts.user, head_start_ms = facts.head_start_ms, will_return = true,
    priority = facts.priority, weight = facts.weight, clients = {}, uses = {},
    answers = {}, over = {}, previous = last_answering(ticket, facts), first = facts.first or ticket,
    round = (facts.round or 1) + 1 }
  local id = again.first .. "-" .. again.round
  enqueue(id, again)
  return position_of(id, again)
end

local function out_of(ticket, facts, from, ended_ms)
  if from == "waiting" then
    learn_wait("gone")
    dequeue(ticket, facts, "gone")
  elseif from == "draft" then
    learn_draft(false, drafted_for(ticket, ended_ms))
  else
    learn_session(ended_ms - facts.started_ms)
    if not REQUESTS then start_finishing(ticket, facts, ended_ms) end
  end
  for _, key in ipairs({ K.drafts, K.sessions, K.unused, K.idle }) do
    redis.call("ZREM", key, ticket)
  end
  redis.call("HDEL", K.told, ticket, "soon:" .. ticket)
  if from ~= "waiting" then give_back_turn(ticket, facts) end
end

-- End a ticket that has not ended yet; `ended_ms` is its deadline or now.
local function disconnect(ticket, facts, from, reason, ended_ms)
  out_of(ticket, facts, from, ended_ms)
  facts.ended_ms, facts.reason = ended_ms, reason
  redis.call("ZADD", K.ended, ended_ms + READABLE_MS, ticket)
  save_ticket(ticket, facts)
  log(ticket, facts, from, "disconnected", reason)
  if reason == "abandoned" then redis.call("HINCRBY", K.pool, "abandoned_total", 1) end
  if DEADLINE_REASONS[reason] then
    redis.call("HINCRBY", K.pool, "expired_total", 1)
    tell(facts.user, { status = "expired", reason = reason })
  end
  local again = reason == "session_timeout" and POLICY.requeue and not REQUESTS
  tell(facts.user, { status = "disconnected", reason = reason,
    requeue_position = again and requeue(ticket, facts) or cjson.null })
end
