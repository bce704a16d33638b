-- told: what a waiting ticket was last told of its place, and whether its place now is news. Kept
-- for the attached and the first who wait, as "position instant": when its turn was to come, in ms.

local TOLD_FIRST = 1000     -- told without being attached (DESIGN 6)
local STEP_MS = 15000       -- an estimate that moved less is no news,
local STEP_SHARE = 0.1      -- nor one that moved by a smaller share of the wait

local function seconds(ms)
  return ms and math.ceil(ms / 1000) or cjson.null
end

local function remember(position, wait_ms)
  return string.format("%d ", position) .. (wait_ms and exact(NOW + wait_ms) or "-")
end

-- The place of a ticket that stands in the order; nil for any other.
local function place_of(ticket)
  local rank = redis.call("ZRANK", K.queue, ticket)
  if rank then return rank + 1 end
  local facts = REQUESTS and load_ticket(ticket)
  if facts and redis.call("ZSCORE", K.backlog, of_user(facts.user, ticket)) then
    return backlog_position(ticket, facts)
  end
end

-- Is this news beside what was last told, and what made it worse: "passed" by somebody with a head
-- start or who came back, another "capacity", or a release that is "overdue".
local function news_in(last, position, wait_ms, slots_changed)
  local last_position, due = string.match(last or "", "^(%d+) (%S+)$")
  if not last_position then return true end
  last_position, due = tonumber(last_position), tonumber(due)
  local later = due and wait_ms and NOW + wait_ms - due or 0
  local shifted = math.abs(later) >= math.max(STEP_MS, STEP_SHARE * (wait_ms or 0))
    or (due == nil) ~= (wait_ms == nil)
  local because
  if position > last_position then because = "passed"
  elseif shifted and slots_changed then because = "capacity"
  elseif shifted and due and (later > 0 or not wait_ms) then because = "overdue" end
  return shifted or position ~= last_position, because
end

local function say_position(facts, position, wait_ms, because)
  tell(facts.user, { status = "waiting", position = position, estimated_wait = seconds(wait_ms),
    because = because })
end

-- A join tells its own place at once; it is remembered where announce will look.
local function tell_position(ticket, facts, position)
  local wait_ms = estimate(position)
  if position <= TOLD_FIRST or redis.call("ZSCORE", K.presence, ticket) then
    redis.call("HSET", K.told, ticket, remember(position, wait_ms))
  end
  say_position(facts, position, wait_ms)
end
