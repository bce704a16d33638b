--[[
exchange - add what one process counted, and tell what all have counted. The same word again, whose
reply was lost, adds nothing.

KEYS  the number of the process' last word, then the windows
ARGV  now_ms (0 = Redis TIME), the number of this word, the life of that number (s); then for each
      window in MessagePack its life (s), what to add to which fields, and the fields to tell
RETURNS now_ms, and for each window the fields it was asked for
]]
local heard = redis.call("GET", KEYS[1]) == ARGV[2]
redis.call("SET", KEYS[1], ARGV[2], "EX", ARGV[3])
local told = {}
for i = 2, #KEYS do
  local life_s, added, wanted = unpack(cmsgpack.unpack(ARGV[i + 2]))
  if not heard and next(added) then
    for field, count in pairs(added) do redis.call("HINCRBY", KEYS[i], field, count) end
    redis.call("EXPIRE", KEYS[i], life_s)
  end
  told[#told + 1] = #wanted > 0 and redis.call("HMGET", KEYS[i], unpack(wanted)) or {}
end
return { NOW, told }
