-- ticket: reading and writing a ticket's facts. A ticket's state is which set holds it.

local ANSWER_LEASE_MS = 30000 -- an answer not renewed for this long no longer runs (DESIGN 4)
local FINISHING_MS = 120000   -- how long an answer may outlive its session (DESIGN 4)

local function load_ticket(ticket)
  local raw = ticket and redis.call("HGET", K.tickets, ticket)
  return raw and cjson.decode(raw) or nil
end

local function save_ticket(ticket, facts)
  redis.call("HSET", K.tickets, ticket, cjson.encode(facts))
end

-- State and deadline as they count now: past its deadline a ticket is disconnected, ticked or not.
local function state_of(ticket, facts)
  if facts.ended_ms then return "disconnected", nil, facts.reason end
  local deadline = tonumber(redis.call("ZSCORE", K.sessions, ticket))
  if deadline and deadline > NOW then return "active", deadline end
  if deadline then return "disconnected", nil, "session_timeout" end
  deadline = tonumber(redis.call("ZSCORE", K.drafts, ticket))
  if deadline and deadline > NOW then return "draft", deadline end
  if deadline then return "disconnected", nil, "draft_timeout" end
  return "waiting"
end

-- Until when do answers of this ticket run? Forgets those that lapsed; 0 when none runs.
local function answering_until(facts)
  local latest = 0
  for _, leases in ipairs({ facts.uses, facts.answers }) do
    for id, deadline in pairs(leases) do
      if deadline > NOW then latest = math.max(latest, deadline) else leases[id] = nil end
    end
  end
  return latest
end

local function count(map)
  local n = 0
  for _ in pairs(map) do n = n + 1 end
  return n
end
