-- presence: waiting <-> skipped. Presence keeps the place (DESIGN 4, invariant 9); when it lapses
-- the ticket is passed over, and coming back restores it with its score.

local SKIPPED_MS = 600000 -- a lapsed place is kept this long

-- Who said "I will return" needs no presence.
local function attach(ticket, facts)
  if redis.call("ZREM", K.skipped, ticket) == 1 then
    line_up(ticket, facts)
    save_ticket(ticket, facts)
    log(ticket, facts, "skipped", "waiting")
  end
  if not facts.will_return then
    redis.call("ZADD", K.presence, NOW + POLICY.grace_ms, ticket)
  end
end

local function skip(ticket, facts)
  step_out(ticket, facts, "skipped")
  save_ticket(ticket, facts) -- its score, which it returns to
  redis.call("ZREM", K.presence, ticket)
  redis.call("ZADD", K.skipped, NOW + SKIPPED_MS, ticket)
  log(ticket, facts, "waiting", "skipped")
end
