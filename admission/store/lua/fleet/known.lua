--[[
known - what a command said that was asked within known_ms.

ARGV
  now_ms    int   0 = Redis TIME
  id        str   of the command
  known_ms  int
RETURNS
  known    the digest of it
  unknown  it was not asked
]]
local id, known_ms = ARGV[2], tonumber(ARGV[3])
local asked_ms = redis.call("ZSCORE", FLEET.asked, id)
if not asked_ms or tonumber(asked_ms) <= NOW - known_ms then return { "unknown" } end
return { "known", redis.call("HGET", FLEET.words, id) }
