--[[
judge_worker - what the scheduler found out about a worker that its own reports do not say; with a
verdict it gets no requests, whatever it reports.

ARGV
  now_ms   int   0 = Redis TIME
  policy   json  the pool's settings
  worker   str
  verdict  str   why it may not be used; '' for nothing against it
RETURNS
  changed  null
  same     null  also when there is no such worker
]]
local worker, verdict = ARGV[3], ARGV[4]
local raw = redis.call("HGET", K.workers, worker)
local facts = raw and cjson.decode(raw)
if not facts or (facts.verdict or "") == verdict then return reply("same") end
facts.verdict = verdict ~= "" and verdict or nil
redis.call("HSET", K.workers, worker, cjson.encode(facts))
if facts.verdict then redis.call("ZREM", K.ready, worker) end
return reply("changed")
