-- publish: one line for the log per transition, the news for the users it touches, and one event
-- for the processes that serve the pool (admission/store/news.py reads it).

local NAMED_MAX = 500 -- users one event names; beyond, every process looks at all it serves
local LOG, CHANGED = {}, false
local CHANNEL = "vestibule:{" .. POLICY.pool .. "}:changed"

local function log(ticket, facts, from, to, reason)
  LOG[#LOG + 1] = { ticket_id = ticket, user_id = facts.user, from = from, to = to,
    reason = reason }
end

-- Places or estimates are other ones now, though no ticket moved.
local function places_changed()
  CHANGED = true
end

local function tell(user, message)
  message.user_id, message.pool = user, POLICY.pool
  redis.call("PUBLISH", "queue_status:" .. user, cjson.encode(message))
end

local function tell_slot(user, deadline)
  tell(user, { status = "slot_available", duration = math.ceil((deadline - NOW) / 1000),
    expires_at = iso(deadline) })
end

local function publish_event()
  local users, named = {}, {}
  for _, move in ipairs(LOG) do
    if not named[move.user_id] then users[#users + 1], named[move.user_id] = move.user_id, true end
  end
  local moved = users
  if #users == 0 then moved = nil elseif #users > NAMED_MAX then moved = "all" end
  redis.call("PUBLISH", CHANNEL, cjson.encode({ moved = moved }))
end

-- The reply of every script: a tag, a payload and what moved, the last two as JSON.
local function reply(tag, payload)
  if #LOG > 0 or CHANGED then publish_event() end
  local moved = #LOG > 0 and cjson.encode(LOG) or "[]" -- cjson would make {} of an empty list
  return { tag, payload and cjson.encode(payload) or "null", moved }
end
