--[[
heartbeat - renew presence while waiting, the use of a session, or a request pool's lease; never a
hard deadline.

ARGV
  now_ms  int   0 = Redis TIME
  policy  json  the pool's settings
  user    str
  client  str   '' or the chat whose answer is being prepared or runs: that counts as use
  ticket  str   '' or the ticket meant, in a request pool
RETURNS
  alive    view
  ended    view  the ticket is over (its last answer may be finishing)
  unknown  null
]]
local user, client, named = ARGV[3], ARGV[4], ARGV[5]

local function renew_finishing(ticket)
  local facts = load_finishing(ticket)
  if not facts or not facts.answers[client] then return end
  renew_answer(facts, client)
  keep_finishing(ticket, facts)
end

end_due()
local ticket, facts, state = latest(user, named)
if not ticket then return unknown() end
if state == "waiting" then
  attach(ticket, facts)
elseif state == "active" and (REQUESTS or client ~= "") then
  answering_until(facts) -- forgets lapsed answers
  renew_answer(facts, client)
  use(ticket, facts)
  save_ticket(ticket, facts)
end
renew_finishing(ticket)
renew_finishing(facts.previous)
offer_free()
facts = load_ticket(ticket)
return reply(state == "disconnected" and "ended" or "alive", view(ticket, facts))
