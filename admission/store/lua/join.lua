--[[
join - give the user a place, or tell the one they have; never two for one claim: the user in a
session pool, the user's request in a request pool.

ARGV
  now_ms        int   0 = Redis TIME
  policy        json  the pool's settings
  user          str
  ticket        str   id for a new ticket; a request pool numbers it
  request       str   the request that needs a slot, in a request pool; else ''
  auto_confirm  0|1   1 = admit without a draft; counts as presence for one grace
  will_return   0|1   1 = do not watch; drops presence and auto_confirm
  client        str   the chat that waits, or ''
  priority      str   a class of the pool; it is kept for as long as the ticket lives
RETURNS
  joined          view  a new ticket
  known           view  the ticket as it was, its flags replaced
  full            null  the queue has reached its limit
  paused          null  the pool takes nobody new
  unknown_class   null  the pool has no such priority
  request_needed  null  a request pool, and no request was named
]]
local user, ticket, request = ARGV[3], ARGV[4], ARGV[5]
local auto_confirm, will_return, client = ARGV[6] == "1", ARGV[7] == "1", ARGV[8]
local priority = ARGV[9]
local class = class_of(priority)

-- Past CHATS_MAX a chat is not told apart any more: it stays until the whole turn ends.
local function set_flags(id, facts)
  local apart = facts.clients[client] or count(facts.clients) < CHATS_MAX
  local chat = apart and client or ""
  facts.auto_confirm, facts.will_return = auto_confirm and not will_return, will_return
  facts.clients[chat] = true
  facts.over[chat] = nil
  if facts.will_return then redis.call("ZREM", K.presence, id) end
end

local function known(id, facts, state)
  set_flags(id, facts)
  local skipped = redis.call("ZSCORE", K.skipped, id) -- joining again is coming back
  save_ticket(id, facts)
  if state == "waiting" and (facts.auto_confirm or skipped) then attach(id, facts) end
  offer_free()
  return reply("known", view(id, load_ticket(id)))
end

local function crowded()
  local waiting = waiting_count() + redis.call("ZCARD", K.skipped)
  return POLICY.queue_limit and waiting >= POLICY.queue_limit and free_slots() == 0
end

if REQUESTS and request == "" then return reply("request_needed") end
if not REQUESTS then request = "" end
end_due()
local id, facts, state = settled(redis.call("HGET", K.users, claim_of(user, request)), user)
local kept = class or facts and facts.priority == priority -- the pool may have lost it since
if id and state ~= "disconnected" and kept then return known(id, facts, state) end
offer_free()
if not class then return reply("unknown_class") end
if id == ticket then return reply("known", view(id, facts)) end -- a repeat; its turn is over
if POLICY.paused then return reply("paused") end
if crowded() then return reply("full") end
ticket = REQUESTS and numbered(ticket) or ticket
facts = { user = user, request = request ~= "" and request or nil,
  priority = priority ~= "default" and priority or nil, weight = class.weight ~= 1 and class.weight,
  head_start_ms = class.head_start_ms ~= 0 and class.head_start_ms, clients = {}, uses = {},
  answers = {}, over = {}, previous = not REQUESTS and last_answering(id, facts) or nil }
set_flags(ticket, facts)
enqueue(ticket, facts)
if facts.auto_confirm then attach(ticket, facts) end
offer_free()
facts = load_ticket(ticket)
local now_state, deadline, reason = state_of(ticket, facts)
if now_state == "waiting" then tell_position(ticket, facts, position_of(ticket, facts)) end
return reply("joined", view(ticket, facts, now_state, deadline, reason))
