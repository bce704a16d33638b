--[[
done - one request of a session is over; the last one gives back a finishing slot.

ARGV
  now_ms   int   0 = Redis TIME
  policy   json  the pool's settings
  ticket   str
  request  str
RETURNS
  done  null
]]
local ticket, request = ARGV[3], ARGV[4]
end_due()
local facts = load_ticket(ticket)
if facts and facts.uses[request] then
  facts.uses[request] = nil
  if facts.finish_ms and answering_until(facts) == 0 then
    redis.call("ZREM", K.finishing, ticket)
  end
  save_ticket(ticket, facts)
end
offer_free()
return reply("done")
