--[[
now - the time by which all other instants of the store are measured.

ARGV  now_ms (0 = Redis TIME)
RETURNS ms since 1970
]]
return NOW
