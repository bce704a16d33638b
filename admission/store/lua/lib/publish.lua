-- publish: one line for the log per transition, and the news for the users it touches.

local LOG = {}
local CHANNEL = "vestibule:{" .. POLICY.pool .. "}:changed"

local function log(ticket, facts, from, to, reason)
  LOG[#LOG + 1] = { ticket_id = ticket, user_id = facts.user, from = from, to = to,
    reason = reason }
end

local function tell(user, message)
  message.user_id, message.pool = user, POLICY.pool
  redis.call("PUBLISH", "queue_status:" .. user, cjson.encode(message))
end

local function tell_slot(user, deadline)
  tell(user, { status = "slot_available", duration = math.ceil((deadline - NOW) / 1000),
    expires_at = iso(deadline) })
end

-- The reply of every script: a tag, a payload and what moved, the last two as JSON.
local function reply(tag, payload)
  if #LOG > 0 then redis.call("PUBLISH", CHANNEL, tostring(#LOG)) end
  local moved = #LOG > 0 and cjson.encode(LOG) or "[]" -- cjson would make {} of an empty list
  return { tag, payload and cjson.encode(payload) or "null", moved }
end
