--[[
append - keep the records of requests, as many as there is room for.

KEYS  the stream
ARGV  how many it may hold, then the records
RETURNS how many were kept: the first ones
]]
local room = math.max(0, tonumber(ARGV[1]) - redis.call("XLEN", KEYS[1]))
local kept = math.min(room, #ARGV - 1)
for i = 2, kept + 1 do
  redis.call("XADD", KEYS[1], "*", "r", ARGV[i])
end
return kept
