--[[
heartbeat - renew presence while waiting, and the use of a session; never a hard deadline.

ARGV
  now_ms  int   0 = Redis TIME
  policy  json  the pool's settings
  user    str
  client  str   '' or the chat whose answer is being prepared or runs: that counts as use
RETURNS
  alive    view
  ended    view  the ticket is over (its last answer may be finishing)
  unknown  null
]]
local user, client = ARGV[3], ARGV[4]

local function renew_answer(ticket, facts)
  facts.answers[client] = NOW + ANSWER_LEASE_MS
  save_ticket(ticket, facts)
end

-- An answer that still runs after its session keeps the slot for at most FINISHING_MS.
local function renew_finishing(ticket)
  local facts = load_ticket(ticket)
  if not facts or not redis.call("ZSCORE", K.finishing, ticket) then return end
  if not facts.answers[client] then return end
  renew_answer(ticket, facts)
  redis.call("ZADD", K.finishing, math.min(NOW + ANSWER_LEASE_MS, facts.finish_ms), ticket)
end

end_due()
local ticket, facts, state = latest(user)
if not ticket then return reply("unknown") end
if state == "waiting" then
  attach(ticket, facts)
elseif state == "active" and client ~= "" then
  use(ticket, facts)
  renew_answer(ticket, facts)
end
if client ~= "" then
  renew_finishing(ticket)
  if facts.previous then renew_finishing(facts.previous) end
end
offer_free()
facts = load_ticket(ticket)
return reply(state == "disconnected" and "ended" or "alive", view(ticket, facts))
