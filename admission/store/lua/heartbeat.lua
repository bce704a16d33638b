--[[
heartbeat - renew presence while waiting, the use of a session, or a request pool's lease; never a
hard deadline.

ARGV
  now_ms  int   0 = Redis TIME
  policy  json  the pool's settings
  user    str
  client  str   '' or a chat. Of a session, its answer is being prepared or runs: that counts as
                use. Who waits is present by it only when the chat waits with this ticket: an answer
                of the last session may still run when its page is closed
  ticket  str   '' or the ticket meant, in a request pool
RETURNS
  alive    view
  ended    view  the ticket is over; `finishing` in it: this chat's answer may run on
  unknown  null
]]
local user, client, named = ARGV[3], ARGV[4], ARGV[5]

-- Does that chat wait with this ticket? Those beyond CHATS_MAX joined under no name of their own.
local function waits_with(facts)
  local crowd = facts.clients[""] and count(facts.clients) >= CHATS_MAX
  return client == "" or facts.clients[client] or crowd
end

local function renew_finishing(ticket)
  local facts = load_finishing(ticket)
  if not facts or not facts.answers[client] then return false end
  renew_answer(facts, client)
  keep_finishing(ticket, facts)
  return true
end

end_due()
local ticket, facts, state = latest(user, named)
if not ticket then return unknown() end
if state == "waiting" then
  if waits_with(facts) then attach(ticket, facts) end
elseif state == "active" and (REQUESTS or client ~= "") then
  answering_until(facts) -- forgets lapsed answers
  renew_answer(facts, client)
  use(ticket, facts)
  save_ticket(ticket, facts)
end
local finishing = renew_finishing(ticket)
finishing = renew_finishing(facts.previous) or finishing
offer_free()
local seen = view(ticket, load_ticket(ticket))
seen.finishing = finishing or nil
return reply(state == "disconnected" and "ended" or "alive", seen)
