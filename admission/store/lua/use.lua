--[[
use - begin or renew one request of a user's session; only who holds a slot may pass. In a request
pool the request itself must hold one, and its lease is renewed.

ARGV
  now_ms       int   0 = Redis TIME
  policy       json  the pool's settings
  user         str
  request      str   id of this request, the same at each renewal
  message      str   '' or the chat message it answers
  concurrency  int   requests of one session that may run at once; a lease carries one
  ticket       str   '' or the lease meant, in a request pool; else the one of this request
RETURNS
  pass     {ticket_id, deadline_ms, now_ms, running}  renew within 30 s; deadline_ms is the
                                     session's, absent when the session is over and this answer
                                     is finishing; running: requests of the session, with this one
  busy     {ticket_id}               as many requests as allowed already run
  refused  view|null                 no session; the view tells the place, if there is one
]]
local user, request, message, named = ARGV[3], ARGV[4], ARGV[5], ARGV[7]
local concurrency = REQUESTS and 1 or tonumber(ARGV[6])

local function renew(ticket, facts)
  facts.uses[request] = NOW + ANSWER_LEASE_MS
  renew_answer(facts, message)
  save_ticket(ticket, facts)
end

local function crowded(facts)
  return not facts.uses[request] and count(facts.uses) >= concurrency
end

local function finishing(ticket)
  local facts = load_finishing(ticket)
  if not facts or not (facts.uses[request] or facts.answers[message]) then return nil end
  if crowded(facts) then return reply("busy", { ticket_id = ticket }) end
  renew(ticket, facts)
  keep_finishing(ticket, facts)
  return reply("pass", { ticket_id = ticket })
end

end_due()
offer_free()
local id = REQUESTS and named ~= "" and named
  or redis.call("HGET", K.users, claim_of(user, REQUESTS and request or ""))
local ticket, facts, state = settled(id, user)
if not ticket then return reply("refused") end
if state == "active" then
  answering_until(facts) -- forgets lapsed requests
  if crowded(facts) then return reply("busy", { ticket_id = ticket }) end
  use(ticket, facts)
  renew(ticket, facts)
  return reply("pass", { ticket_id = ticket, now_ms = NOW, running = count(facts.uses),
    deadline_ms = tonumber(redis.call("ZSCORE", K.sessions, ticket)) })
end
return finishing(ticket) or finishing(facts.previous)
  or reply("refused", view(ticket, facts))
