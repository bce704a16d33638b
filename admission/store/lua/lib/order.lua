-- order: who is next. In a session pool everybody stands in `queue` by time of arrival, less the
-- head start of their class. In a request pool the order is fair between users, by start-time fair
-- queueing (Goyal, Vin, Cheng: SIGCOMM 1996): only each user's first request stands in `queue`, by
-- its start tag; the others wait in `backlog`, so a loud user makes no script scan.
--
-- Virtual time is the start tag of the request served last. A tag is the later of the virtual time
-- and the user's finish tag (kept in `shares`; one in the past is as good as none); each request
-- served moves the finish tag on by one turn divided by the user's weight. Who comes back after a
-- pause starts at the virtual time: no credit is banked.

local TURN = 1000000 -- virtual time of one request at weight 1
local EPOCH_MS = 1735689600000 -- 2025

-- Place in the order of arrival: 4096 places inside each millisecond since 2025, never backwards,
-- exact in a double until the year 2094.
local function next_score(head_start_ms)
  local clock = redis.call("HMGET", K.pool, "t_ms", "seq")
  local t_ms, seq = tonumber(clock[1]) or 0, tonumber(clock[2]) or 0
  if NOW > t_ms then t_ms, seq = NOW, 0 else seq = seq + 1 end
  if seq == 4096 then t_ms, seq = t_ms + 1, 0 end
  redis.call("HSET", K.pool, "t_ms", exact(t_ms), "seq", seq)
  return (t_ms - EPOCH_MS - head_start_ms) * 4096 + seq
end

-- Equal tags are served in the order of the ids, and members of the backlog in the order of user
-- and id: a request's id begins with the number of its arrival.
local function numbered(ticket)
  return string.format("%012.0f-%s", redis.call("HINCRBY", K.pool, "arrivals", 1), ticket)
end

-- Of one user in a request pool: {head = ticket in the shared order, running = tickets that hold a
-- slot}. What a user may have any number of is not in this record: `backlog` and `aside`.
local function load_lane(user)
  local raw = redis.call("HGET", K.lanes, user)
  local lane = raw and cmsgpack.unpack(raw) or {}
  lane.running = lane.running or {}
  return lane
end

local function save_lane(user, lane)
  if lane.head or next(lane.running) then
    redis.call("HSET", K.lanes, user, cmsgpack.pack(lane))
  else
    redis.call("HDEL", K.lanes, user)
  end
end

-- A ticket's member of `backlog` or `aside`, and where a user's begin and end there. No user id
-- holds a space or an exclamation mark, which follows it (DESIGN 5).
local function of_user(user, ticket) return user .. " " .. ticket end
local function first_of(user) return "[" .. user .. " " end
local function last_of(user) return "(" .. user .. "!" end

-- The user's first tickets in `backlog` or `aside`.
local function some_of(key, user, most)
  local found = redis.call("ZRANGEBYLEX", key, first_of(user), last_of(user), "LIMIT", 0, most)
  for i, member in ipairs(found) do found[i] = string.sub(member, #user + 2) end
  return found
end

local function virtual_time()
  return tonumber(redis.call("HGET", K.pool, "virtual")) or 0
end

-- The user's next request takes its place in the shared order, unless one stands there already or
-- as many run as allowed: then none stands there, also when the limit was lowered meanwhile.
local function promote(user, lane)
  local most = POLICY.user_concurrency
  local allowed = not most or count(lane.running) < most
  if lane.head and not allowed then
    redis.call("ZREM", K.queue, lane.head)
    redis.call("ZADD", K.backlog, 0, of_user(user, lane.head))
    lane.head = nil
  end
  local first = not lane.head and allowed and some_of(K.backlog, user, 1)[1]
  if first then
    lane.head = first
    local finish = tonumber(redis.call("ZSCORE", K.shares, user)) or 0
    redis.call("ZREM", K.backlog, of_user(user, first))
    redis.call("ZADD", K.queue, exact(math.max(virtual_time(), finish)), lane.head)
  end
  save_lane(user, lane)
end

-- Another limit concerns only users of whom some run: no more than there are slots.
local function promote_all()
  for _, key in ipairs({ K.drafts, K.sessions }) do
    for _, ticket in ipairs(redis.call("ZRANGE", key, 0, -1)) do
      local user = load_ticket(ticket).user
      promote(user, load_lane(user))
    end
  end
end

-- Stand in the order: at the end, or where a skipped ticket stood.
local function line_up(ticket, facts)
  if not REQUESTS then
    redis.call("ZADD", K.queue, exact(facts.score or next_score(facts.head_start_ms or 0)), ticket)
    facts.score = nil
    return
  end
  local lane = load_lane(facts.user)
  redis.call("ZREM", K.aside, of_user(facts.user, ticket))
  redis.call("ZADD", K.backlog, 0, of_user(facts.user, ticket))
  promote(facts.user, lane)
end

-- The end of a quiet spell of a request pool is a new begin: nobody waits or runs, nobody owes.
local function forget_shares()
  redis.call("ZREMRANGEBYSCORE", K.shares, "-inf", exact(virtual_time()))
  if redis.call("HLEN", K.lanes) + redis.call("ZCARD", K.aside) == 0 then
    redis.call("DEL", K.shares)
    redis.call("HDEL", K.pool, "virtual")
  end
end

-- A slot is granted: only now is the user charged for the turn.
local function charge(ticket, facts, lane)
  local start = tonumber(redis.call("ZSCORE", K.queue, ticket)) or virtual_time()
  redis.call("HSET", K.pool, "virtual", exact(math.max(virtual_time(), start)))
  redis.call("ZADD", K.shares, exact(start + TURN / (facts.weight or 1)), facts.user)
  lane.running[ticket] = true
end

-- Out of the order, because a slot was granted ("served"), presence lapsed ("skipped"), or the
-- ticket ended ("gone").
local function step_out(ticket, facts, why)
  if not REQUESTS then
    if why == "skipped" then facts.score = tonumber(redis.call("ZSCORE", K.queue, ticket)) end
    redis.call("ZREM", K.queue, ticket)
    return
  end
  local lane, member = load_lane(facts.user), of_user(facts.user, ticket)
  redis.call("ZREM", K.aside, member)
  if why == "skipped" then redis.call("ZADD", K.aside, 0, member) end
  if why == "served" then charge(ticket, facts, lane) end
  if lane.head == ticket then lane.head = nil end
  redis.call("ZREM", K.queue, ticket)
  redis.call("ZREM", K.backlog, member)
  promote(facts.user, lane)
  if why == "gone" then forget_shares() end
end

-- A request's slot is given back, which may let the user's next one into the order.
local function give_back_turn(ticket, facts)
  if not REQUESTS then return end
  local lane = load_lane(facts.user)
  lane.running[ticket] = nil
  promote(facts.user, lane)
  forget_shares()
end

local function waiting_count()
  return redis.call("ZCARD", K.queue) + redis.call("ZCARD", K.backlog)
end

-- Round by round: behind one's own earlier requests, the others' first ones, and as many of their
-- further ones as come in the rounds before, and in this one of those who are first in each. About:
-- it knows how many requests the others have, not whose they are, and no weights.
local function backlog_position(ticket, facts)
  local user, lane = facts.user, load_lane(facts.user)
  local rounds = redis.call("ZLEXCOUNT", K.backlog, first_of(user),
    "(" .. of_user(user, ticket)) + 1
  local own = redis.call("ZLEXCOUNT", K.backlog, first_of(user), last_of(user))
  local own_head = lane.head and 1 or 0
  local others = redis.call("ZCARD", K.queue) - own_head
  local before = lane.head and redis.call("ZRANK", K.queue, lane.head) or others
  local further = redis.call("ZCARD", K.backlog) - own
  return rounds + own_head + others + math.min(others * (rounds - 1) + before, further)
end

-- 1-based place in the order; of a skipped ticket the one it would return to.
local function position_of(ticket, facts)
  local rank = redis.call("ZRANK", K.queue, ticket)
  if rank then return rank + 1 end
  if REQUESTS then return backlog_position(ticket, facts) end
  return 1 + redis.call("ZCOUNT", K.queue, "-inf", "(" .. exact(facts.score))
end

-- The user's ticket: in a session pool there is one; in a request pool the one that is named by its
-- id, the newest, or when that one is forgotten another that is not over.
local function meant_by(user, named)
  if REQUESTS and named and named ~= "" then return named end
  local ticket = redis.call("HGET", K.users, user)
  if ticket or not REQUESTS then return ticket end
  local lane = load_lane(user)
  return lane.head or next(lane.running) or some_of(K.aside, user, 1)[1]
end
