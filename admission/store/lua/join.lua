--[[
join - give the user a place, or tell the one they have; never two of one user.

ARGV
  now_ms         int   0 = Redis TIME
  policy         json  the pool's settings
  user           str
  ticket         str   id for a new ticket
  auto_confirm   0|1   1 = admit without a draft; counts as presence for one grace
  will_return    0|1   1 = do not watch; drops presence and auto_confirm
  client         str   the chat that waits, or ''
  model          str   or ''
  head_start_ms  int   seconds of priority, in ms
RETURNS
  joined   view  a new ticket
  known    view  the user's ticket as it was, its flags replaced
  full     null  the queue has reached its limit
  paused   null  the pool takes nobody new
]]
local user, ticket, model = ARGV[3], ARGV[4], ARGV[8]
local auto_confirm, will_return, client = ARGV[5] == "1", ARGV[6] == "1", ARGV[7]
local head_start_ms = tonumber(ARGV[9])

-- Past CHATS_MAX a chat is not told apart any more: it stays until the whole turn ends.
local function set_flags(id, facts)
  local chat = count(facts.clients) < CHATS_MAX and client or ""
  facts.auto_confirm, facts.will_return = auto_confirm and not will_return, will_return
  facts.clients[chat] = 1
  if facts.will_return then redis.call("ZREM", K.presence, id) end
end

end_due()
local id, facts, state = latest(user)
if id and state ~= "disconnected" then
  set_flags(id, facts)
  local skipped = redis.call("ZSCORE", K.skipped, id) -- joining again is coming back
  if state == "waiting" and (facts.auto_confirm or skipped) then attach(id, facts) end
  save_ticket(id, facts)
  offer_free()
  return reply("known", view(id, load_ticket(id)))
end
offer_free()
if POLICY.paused then return reply("paused") end
local waiting = redis.call("ZCARD", K.queue) + redis.call("ZCARD", K.skipped)
if POLICY.queue_limit and waiting >= POLICY.queue_limit and free_slots() == 0 then
  return reply("full")
end
facts = { user = user, model = model, head_start_ms = head_start_ms, clients = {}, uses = {},
  answers = {}, previous = last_answering(id, facts) }
set_flags(ticket, facts)
enqueue(ticket, facts)
if facts.auto_confirm then attach(ticket, facts) end
offer_free()
facts = load_ticket(ticket)
if state_of(ticket, facts) == "waiting" then
  tell_position(ticket, facts, position_of(facts))
end
return reply("joined", view(ticket, facts))
