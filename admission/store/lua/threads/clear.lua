--[[
clear - forget a conversation's messages; what an answer that still runs would add is not kept.

ARGV
  now_ms   int   0 = Redis TIME
  life_ms  int   since the last use
  thread   str
RETURNS
  cleared  facts
  unknown  never there, deleted or over
]]
local facts = load_thread(ARGV[3])
if not facts then return reply("unknown") end
redis.call("DEL", MESSAGES)
facts.bytes, facts.cleared = 0, facts.cleared + 1
save_thread(ARGV[3], facts)
return reply("cleared", cjson.encode(facts))
