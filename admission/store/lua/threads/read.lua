--[[
read - one conversation, whole, at one moment; no side effect.

ARGV
  now_ms   int   0 = Redis TIME
  life_ms  int   since the last use
  thread   str
RETURNS
  read     facts, the messages, oldest first
  unknown  never there, deleted or over
]]
local facts = load_thread(ARGV[3])
if not facts then return reply("unknown") end
return reply("read", cjson.encode(facts), redis.call("LRANGE", MESSAGES, 0, -1))
