--[[
write - the next version of an instance with its lines of history, when nobody changed it since.

ARGV
  now_ms        int   0 = Redis TIME
  tick          str
  epoch         int
  changes       json  one change
  lines         json
  lines_max     int   bytes of the lines kept with an instance
  history_kept  int   entries
  history_max   int   entries
RETURNS
  written  how many entries of the history were lost
  fenced   the tick's lease is another's
  stale    it has another version than was read
  newer    a newer service wrote it
]]
local tick, epoch = ARGV[2], ARGV[3]
local changes, lines = cjson.decode(ARGV[4]), cjson.decode(ARGV[5])
local lines_max = tonumber(ARGV[6])
local history_kept, history_max = tonumber(ARGV[7]), tonumber(ARGV[8])
if fenced(FLEET.ticks, tick, epoch) then return { "fenced" } end
local why = obstacle(changes)
if why == "done" then return { "written", 0 } end
if why then return { why } end
return { "written", keep(changes, lines, lines_max, history_kept, history_max) }
