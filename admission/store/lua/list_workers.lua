--[[
list_workers - read the registry; a worker is ready while its last report is good.

ARGV
  now_ms  int   0 = Redis TIME
  policy  json  the pool's settings
RETURNS
  workers  {now_ms, workers}  absent when there is none
]]
local all = redis.call("HGETALL", K.workers)
local workers = {}
for i = 1, #all, 2 do
  local facts = cjson.decode(all[i + 1])
  local lease = tonumber(redis.call("ZSCORE", K.ready, all[i])) or 0
  if facts.ready and not facts.draining and lease <= NOW then
    facts.reason = "no heartbeat"
  end
  facts.reason = facts.verdict or facts.reason
  facts.worker_id, facts.ready = all[i], lease > NOW
  workers[#workers + 1] = facts
end
return reply("workers", { now_ms = NOW, workers = #workers > 0 and workers or nil })
