--[[
append - keep one exchange, whole or not at all; the oldest exchanges go when the thread is full.

ARGV
  now_ms       int   0 = Redis TIME
  life_ms      int   since the last use
  thread       str
  cleared      int   how often the thread had been cleared when it was read; -1 = it is new
  question     str   the user's message
  answer       str   the assistant's
  bytes_max    int   of one thread
  threads_max  int   of one user
RETURNS
  saved      facts, the ids that made room
  gone       deleted, cleared or over since it was read
  too_large  this exchange alone is more than a thread may hold
]]
local thread, cleared = ARGV[3], tonumber(ARGV[4])
local bytes_max, threads_max = tonumber(ARGV[7]), tonumber(ARGV[8])

local function message(role, content)
  return cjson.encode({ role = role, content = content, at_ms = NOW })
end

local question, answer = message("user", ARGV[5]), message("assistant", ARGV[6])
if #question + #answer > bytes_max then return reply("too_large") end

local facts, gone = load_thread(thread), {}
if cleared == -1 and not facts then
  facts, gone = new_thread({ metadata = {} }), make_room(threads_max)
elseif not facts or facts.cleared ~= math.max(cleared, 0) then
  return reply("gone")
end
redis.call("RPUSH", MESSAGES, question, answer)
facts.bytes = facts.bytes + #question + #answer
while facts.bytes > bytes_max do
  facts.bytes = facts.bytes - #redis.call("LPOP", MESSAGES) - #redis.call("LPOP", MESSAGES)
end
save_thread(thread, facts)
return reply("saved", cjson.encode(facts), gone)
