--[[
metrics - count what the gate counts; changes nothing.

ARGV
  now_ms  int   0 = Redis TIME
  policy  json  the pool's settings
RETURNS
  metrics  {capacity, active, draft, finishing, waiting, free, paused, granting, *_total, wait_ms,
           wait_alone_ms, waits_ms, settings}   waits_ms: the newest waits; wait_ms: of who would join
           now; wait_alone_ms: were no machine coming
]]
local counters = redis.call("HMGET", K.pool, "admitted_total", "expired_total", "abandoned_total")
local waiting = waiting_count()
local waits = redis.call("LRANGE", K.waits, 0, -1)
for i, wait in ipairs(waits) do waits[i] = tonumber(wait) end
local pool = pool_now()
local wait_ms, wait_high_ms = estimate(waiting + 1, pool)
return reply("metrics", {
  now_ms = NOW, capacity = capacity(), active = live_sessions(), draft = live(K.drafts),
  finishing = live_finishing(), waiting = waiting, free = pool.free,
  paused = POLICY.paused or false, granting = granting(), ready_workers = live(K.ready),
  admitted_total = tonumber(counters[1]) or 0, expired_total = tonumber(counters[2]) or 0,
  abandoned_total = tonumber(counters[3]) or 0, wait_ms = wait_ms, wait_high_ms = wait_high_ms,
  wait_alone_ms = estimate(waiting + 1, pool, true), waits_ms = #waits > 0 and waits or nil,
  settings = POLICY,
})
