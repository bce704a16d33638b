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

local function give_back(id)
  local facts = load_ticket(id)
  if not facts or not facts.uses[request] then return facts end
  facts.uses[request] = nil
  shorten_finishing(id, facts)
  save_ticket(id, facts)
  return facts
end

local facts = give_back(ticket)
-- A request that outlived its session is renewed by the user's next one.
local current = facts and redis.call("HGET", K.users, facts.user)
if current ~= ticket then give_back(current) end
offer_free()
return reply("done")
