--[[
note - lines of history that changed no instance. The same ones again, right after, are the same.

ARGV
  now_ms        int   0 = Redis TIME
  tick          str
  epoch         int
  changes       json  []
  lines         json
  lines_max     int   bytes of the lines kept with an instance
  history_kept  int   entries
  history_max   int   entries
RETURNS
  noted   how many entries of the history were lost
  fenced  the tick's lease is another's
]]
local tick, epoch = ARGV[2], ARGV[3]
local changes, lines = cjson.decode(ARGV[4]), cjson.decode(ARGV[5])
local lines_max = tonumber(ARGV[6])
local history_kept, history_max = tonumber(ARGV[7]), tonumber(ARGV[8])
if fenced(FLEET.ticks, tick, epoch) then return { "fenced" } end
if #lines == 0 then return { "noted", 0 } end
local newest = redis.call("XREVRANGE", FLEET.history, "+", "-", "COUNT", #lines)
local again = #newest == #lines
for i, found in ipairs(newest) do
  again = again and found[2][4] == lines[#lines + 1 - i][2]
end
if again then return { "noted", 0 } end
return { "noted", keep(changes, lines, lines_max, history_kept, history_max) }
