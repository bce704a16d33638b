-- ticket: reading and writing a ticket's facts. A ticket's state is which set holds it.

local ANSWER_LEASE_MS = 30000 -- an answer not renewed for this long no longer runs (DESIGN 4)
local FINISHING_MS = 120000   -- how long an answer may outlive its session (DESIGN 4)
local CHATS_MAX = 100         -- chats and answers that one ticket tells apart
local READABLE_MS = 300000    -- an ended ticket can still be read this long (DESIGN 4)

-- The deadlines that end a ticket: in which set, out of which state, and why. Of those that are due
-- the earliest counts, and of two in the same ms the one further down.
local ENDINGS = {
  { key = K.drafts, from = "draft", reason = "draft_timeout" },
  { key = K.unused, from = "active", reason = "idle" },
  { key = K.sessions, from = "active", reason = "session_timeout" },
  { key = K.timeouts, from = "waiting", reason = "queue_timeout" },
  { key = K.skipped, from = "waiting", reason = "abandoned" },
}

local MAPS = { "clients", "uses", "answers", "over" }
local JSON_OBJECT = 123 -- "{", how layout 1 kept its records; a MessagePack map begins elsewhere

-- A number as Redis must read it: Lua's own tostring rounds to 14 digits.
local function exact(number)
  return string.format("%.0f", number)
end

local function load_ticket(ticket)
  local raw = ticket and redis.call("HGET", K.tickets, ticket)
  if not raw then return nil end
  local facts = string.byte(raw) == JSON_OBJECT and cjson.decode(raw) or cmsgpack.unpack(raw)
  for _, name in ipairs(MAPS) do facts[name] = facts[name] or {} end
  return facts
end

-- What is empty is left out: a million people may wait.
local function save_ticket(ticket, facts)
  local kept = {}
  for name, value in pairs(facts) do
    if value and value ~= "" and (type(value) ~= "table" or next(value)) then kept[name] = value end
  end
  redis.call("HSET", K.tickets, ticket, cmsgpack.pack(kept))
end

-- State and deadline as they count now: past its deadline a ticket is disconnected, ticked or not.
-- Of a disconnected one also why and since when, and the state to end when no script did so yet.
local function state_of(ticket, facts)
  if facts.ended_ms then return "disconnected", nil, facts.reason, facts.ended_ms end
  local state, expires, due, due_ms = "waiting", nil, nil, NOW
  for _, ending in ipairs(ENDINGS) do
    local deadline = tonumber(redis.call("ZSCORE", ending.key, ticket))
    if deadline and deadline <= due_ms then due, due_ms = ending, deadline end
    if deadline and ending.from ~= "waiting" then state, expires = ending.from, deadline end
  end
  if due then return "disconnected", nil, due.reason, due_ms, due.from end
  return state, expires
end

local function readable(ended_ms)
  return not ended_ms or ended_ms + READABLE_MS > NOW
end

-- Until when do answers of this ticket run? Forgets those that lapsed; 0 when none runs.
local function answering_until(facts)
  local latest = 0
  for _, leases in ipairs({ facts.uses, facts.answers }) do
    for id, deadline in pairs(leases) do
      if deadline > NOW then latest = math.max(latest, deadline) else leases[id] = nil end
    end
  end
  for client, deadline in pairs(facts.over) do
    if deadline <= NOW then facts.over[client] = nil end
  end
  return latest
end

local function count(map)
  local n = 0
  for _ in pairs(map) do n = n + 1 end
  return n
end

-- This chat's answer is being prepared or runs. Beyond CHATS_MAX it is not told apart any more.
local function renew_answer(facts, client)
  facts.over[client] = nil
  if client ~= "" and (facts.answers[client] or count(facts.answers) < CHATS_MAX) then
    facts.answers[client] = NOW + ANSWER_LEASE_MS
  end
end

-- This chat's frontend said that its answer is over. What gateways tell of it later is old: they
-- gather such news (`keep`), and it must not hold the slot.
local function end_answer(facts, client)
  facts.clients[client], facts.answers[client] = nil, nil
  if count(facts.over) < CHATS_MAX then facts.over[client] = NOW + ANSWER_LEASE_MS end
end
