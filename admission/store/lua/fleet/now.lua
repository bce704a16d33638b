--[[
now - the time by which deadlines are measured.

ARGV
  now_ms  int  0 = Redis TIME
RETURNS
  now  ms since 1970
]]
return { "now", NOW }
