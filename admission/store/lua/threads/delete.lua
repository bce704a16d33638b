--[[
delete - forget a conversation.

ARGV
  now_ms   int   0 = Redis TIME
  life_ms  int   since the last use
  thread   str
RETURNS
  deleted  it was there
  unknown  never there, deleted or over
]]
local facts = load_thread(ARGV[3])
redis.call("HDEL", THREADS, ARGV[3])
redis.call("DEL", MESSAGES)
return reply(facts and "deleted" or "unknown")
