--[[
list - the user's conversations, without their messages, in no order.

ARGV
  now_ms   int   0 = Redis TIME
  life_ms  int   since the last use
RETURNS
  list  id and facts, in turn
]]
local found, all = {}, redis.call("HGETALL", THREADS)
for i = 1, #all, 2 do
  if alive(cjson.decode(all[i + 1])) then
    found[#found + 1], found[#found + 2] = all[i], all[i + 1]
  end
end
return reply("list", found)
