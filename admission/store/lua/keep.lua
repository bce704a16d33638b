--[[
keep - one process tells of all it runs of a user's session: what runs is renewed, what ended is
given back. For session pools; whether a request may begin at once is asked by `use`.

ARGV
  now_ms    int   0 = Redis TIME
  policy    json  the pool's settings
  user      str
  running   json  {request: message}: what runs there now
  ended     json  [request]: what ran there and is over
  answered  json  [message]: of what began and ended there since the last call, '' for none
RETURNS
  active  {deadline_ms, now_ms, running}  the session's end, and how many of its requests run anywhere
  over    {lost}  there is no session; those of `running` that are not to finish in its last slot
]]
local user = ARGV[3]
local running, ended = cjson.decode(ARGV[4]), cjson.decode(ARGV[5])
local answered = cjson.decode(ARGV[6])

local function give_back(facts)
  for _, request in ipairs(ended) do facts.uses[request] = nil end
  answering_until(facts) -- forgets what lapsed
end

local function go_on(facts, message)
  if not facts.over[message] then renew_answer(facts, message) end
end

local function renew(facts, request, message)
  facts.uses[request] = NOW + ANSWER_LEASE_MS
  go_on(facts, message)
end

local function keep_active(ticket, facts)
  give_back(facts)
  for request, message in pairs(running) do renew(facts, request, message) end
  for _, message in ipairs(answered) do go_on(facts, message) end
  if next(running) or #answered > 0 then use(ticket, facts) end
  save_ticket(ticket, facts)
  return { deadline_ms = tonumber(redis.call("ZSCORE", K.sessions, ticket)), now_ms = NOW,
    running = count(facts.uses) }
end

-- What had run before the session's end runs on; the rest of `running` stays there.
local function finish_rest(ticket)
  local facts, kept = load_finishing(ticket), false
  if not facts then return end
  give_back(facts)
  for request, message in pairs(running) do
    if facts.uses[request] or facts.answers[message] then
      renew(facts, request, message)
      running[request], kept = nil, true
    end
  end
  save_ticket(ticket, facts)
  if kept then keep_finishing(ticket, facts) else shorten_finishing(ticket, facts) end
end

end_due()
local ticket, facts, state = settled(redis.call("HGET", K.users, user), user)
if state == "active" then
  local session = keep_active(ticket, facts)
  offer_free()
  return reply("active", session)
end
finish_rest(ticket)
finish_rest(facts and facts.previous)
offer_free()
local lost = {}
for request in pairs(running) do lost[#lost + 1] = request end
return reply("over", { lost = #lost > 0 and lost or nil })
