--[[
leave - end the user's turn, or only detach one chat from it; beats any offer.

ARGV
  now_ms  int   0 = Redis TIME
  policy  json  the pool's settings
  user    str
  client  str   '' = end whatever there is; else detach this chat, which ends a waiting or drafted
                ticket when it was the last chat, and never ends a session
  ticket  str   '' or the ticket meant
  reason  str   'left', or 'removed' (an admin's word, which also cuts running answers)
RETURNS
  left     {previous, status}  the states before and after
  unknown  null
]]
local user, client, named, reason = ARGV[3], ARGV[4], ARGV[5], ARGV[6]

-- This chat's answer is over; the last one to end gives back a finishing slot.
local function detach(ticket, facts)
  local attached = facts.clients[client]
  facts.clients[client], facts.answers[client] = nil, nil
  if facts.finish_ms and answering_until(facts) == 0 then
    redis.call("ZREM", K.finishing, ticket)
  end
  save_ticket(ticket, facts)
  return attached and count(facts.clients) == 0
end

end_due()
local ticket, facts, state = latest(user)
if named ~= "" and named ~= ticket then
  ticket, facts, state = named, load_ticket(named), "disconnected"
  if facts and facts.user ~= user then facts = nil end
end
if not facts then return reply("unknown") end
local ends = state ~= "disconnected"
if client ~= "" then
  ends = detach(ticket, facts) and (state == "waiting" or state == "draft")
  if facts.previous and load_ticket(facts.previous) then
    detach(facts.previous, load_ticket(facts.previous))
  end
end
if ends then disconnect(ticket, facts, state, reason, NOW) end
if reason == "removed" then -- cuts what still runs, of the session before too
  redis.call("ZREM", K.finishing, ticket, facts.previous or ticket)
end
offer_free()
return reply("left", { previous = state, status = state_of(ticket, load_ticket(ticket)) })
