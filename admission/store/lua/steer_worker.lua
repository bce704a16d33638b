--[[
steer_worker - the fleet's wish that a worker drains, or does no longer. The last word counts,
however late an earlier one arrives: a scheduler that had slept undoes nothing. Taking it back takes
an admin's drain back too, not the worker's own.

ARGV
  now_ms    int   0 = Redis TIME
  policy    json  the pool's settings
  worker    str
  draining  str   'yes' or 'no'
  word      int   when its instance entered the state that says so, in ms
RETURNS
  steered  null
  late     null   a later word was heard
  unknown  null
]]
local worker, draining, word = ARGV[3], ARGV[4] == "yes", tonumber(ARGV[5])
local raw = redis.call("HGET", K.workers, worker)
if not raw then return reply("unknown") end
local facts = cjson.decode(raw)
if facts.steered and facts.steered.word > word then return reply("late") end
facts.steered = { word = word, draining = draining }
facts.draining = draining or facts.drains_itself or nil
redis.call("HSET", K.workers, worker, cjson.encode(facts))
if facts.draining then redis.call("ZREM", K.ready, worker) end
return reply("steered")
