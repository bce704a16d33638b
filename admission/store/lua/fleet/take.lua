--[[
take - a command leaves the stream together with all that it changes, or nothing happens.

ARGV
  now_ms        int   0 = Redis TIME
  tick          str
  epoch         int
  entry         str   of the command
  changes       json  [] where it is refused
  lines         json
  lines_max     int   bytes of the lines kept with an instance
  history_kept  int   entries
  history_max   int   entries
RETURNS
  taken   how many entries of the history were lost
  fenced  the tick's lease is another's
  gone    it was taken before
  stale   an instance has another version than was read
  newer   a newer service wrote an instance
]]
local tick, epoch, entry = ARGV[2], ARGV[3], ARGV[4]
local changes, lines = cjson.decode(ARGV[5]), cjson.decode(ARGV[6])
local lines_max = tonumber(ARGV[7])
local history_kept, history_max = tonumber(ARGV[8]), tonumber(ARGV[9])
if fenced(FLEET.ticks, tick, epoch) then return { "fenced" } end
local why = obstacle(changes)
if #redis.call("XRANGE", FLEET.commands, entry, entry) == 0 then
  return why == "done" and { "taken", 0 } or { "gone" }
end
if why then return { why == "done" and "stale" or why } end
redis.call("XDEL", FLEET.commands, entry)
return { "taken", keep(changes, lines, lines_max, history_kept, history_max) }
