--[[
leave - end the user's turn, or only detach one chat from it; beats any offer.

ARGV
  now_ms  int   0 = Redis TIME
  policy  json  the pool's settings
  user    str
  client  str   '' = end whatever there is; else detach this chat, which ends a waiting or drafted
                ticket when it was the last chat, and never ends a session; in a request pool it
                ends a lease as well
  ticket  str   '' or the ticket meant; without one, all of the user's requests in a request pool
RETURNS
  left     {previous, status}  the states before and after
  unknown  null
]]
local user, client, named = ARGV[3], ARGV[4], ARGV[5]

-- This chat's answer is over; the last one to end gives back a finishing slot.
local function detach(ticket, facts)
  local attached = facts.clients[client]
  end_answer(facts, client)
  shorten_finishing(ticket, facts)
  save_ticket(ticket, facts)
  return attached and count(facts.clients) == 0
end

-- The ticket meant, which may be an older one that is over.
local function meant()
  local ticket, facts, state = latest(user, named)
  if REQUESTS or named == "" or named == ticket then return ticket, facts, state end
  facts = load_ticket(named)
  if not facts or facts.user ~= user then return nil end
  return named, facts, "disconnected"
end

end_due()
local ticket, facts, state = meant()
if not facts then return unknown() end
local ends = state ~= "disconnected"
if client ~= "" then
  -- A session outlives its chats; a lease is for one request, so its end gives the slot back.
  ends = detach(ticket, facts) and (REQUESTS and ends or state == "waiting" or state == "draft")
  if facts.previous and load_ticket(facts.previous) then
    detach(facts.previous, load_ticket(facts.previous))
  end
end
if ends then disconnect(ticket, facts, state, "left", NOW) end
if REQUESTS and client == "" and named == "" then end_all_of(user, "left") end
offer_free()
return reply("left", { previous = state, status = state_of(ticket, load_ticket(ticket)) })
