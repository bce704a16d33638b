--[[
decide - keep what was decided of a pool and what is remembered for the next time, and tell of it.

ARGV
  now_ms        int   0 = Redis TIME
  tick          str
  epoch         int
  name          str   of the memory
  memory        str   any bytes
  pool          str
  decided       json
  line          json  of history, or ""
  history_kept  int   entries
  history_max   int   entries
RETURNS
  kept    how many entries of the history were lost
  fenced  the tick's lease is another's
]]
local tick, epoch, name, memory, pool = ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local decided, line = ARGV[7], ARGV[8]
local history_kept, history_max = tonumber(ARGV[9]), tonumber(ARGV[10])
if fenced(FLEET.ticks, tick, epoch) then return { "fenced" } end
redis.call("HSET", FLEET.memory, name, memory)
redis.call("HSET", FLEET.decided, pool, decided)
if line == "" then return { "kept", 0 } end
return { "kept", keep({}, { { "", line, "" } }, 0, history_kept, history_max) }
