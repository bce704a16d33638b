--[[
tell - a line of history of no instance, once for each mark.

ARGV
  now_ms        int   0 = Redis TIME
  tick          str
  epoch         int
  name          str
  mark          str
  line          json
  history_kept  int   entries
  history_max   int   entries
RETURNS
  told    how many entries of the history were lost
  fenced  the tick's lease is another's
]]
local tick, epoch, name, mark, line = ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local history_kept, history_max = tonumber(ARGV[7]), tonumber(ARGV[8])
if fenced(FLEET.ticks, tick, epoch) then return { "fenced" } end
if redis.call("HGET", FLEET.memory, name) == mark then return { "told", 0 } end
redis.call("HSET", FLEET.memory, name, mark)
return { "told", keep({}, { { "", line, "" } }, 0, history_kept, history_max) }
