--[[
vouch_worker - what the scheduler saw itself of an agent that has been silent. Its last report holds
as long as it is good: until then a good word only carries it further. After that the word decides.

ARGV
  now_ms    int   0 = Redis TIME
  policy    json  the pool's settings
  worker    str
  problem   str   why it may not be used; '' when it may
  quiet_ms  int   with a report younger than this it was not silent
  lease_ms  int   how long a good word is good for
RETURNS
  ready    null  it was not, and now it is
  unready  null  it was, and is no longer
  same     null  also when there is no such agent, or it is not to be used anyway
]]
local REPORT_MS = 30000 -- as long as a report is good (registry.WORKER_LEASE_MS)
local worker, problem, quiet_ms = ARGV[3], ARGV[4], tonumber(ARGV[5])
local lease_ms = tonumber(ARGV[6])
local raw = redis.call("HGET", K.workers, worker)
local facts = raw and cjson.decode(raw)
local silent_ms = facts and facts.report and facts.token_hash and NOW - facts.last_seen_ms
if not silent_ms or silent_ms < quiet_ms then return reply("same") end
if facts.revoked or facts.draining or facts.verdict then return reply("same") end
local until_ms = tonumber(redis.call("ZSCORE", K.ready, worker)) or 0
local was_ready, over = until_ms > NOW, silent_ms >= REPORT_MS
local good = problem == "" and (over or was_ready)
if over then
  facts.ready = good
  facts.reason = good and "no heartbeat, but /readyz answers" or "no heartbeat, and " .. problem
end
if problem == "" then facts.vouched_ms = NOW end
redis.call("HSET", K.workers, worker, cjson.encode(facts))
if good then
  redis.call("ZADD", K.ready, math.max(until_ms, NOW + lease_ms), worker)
elseif over then
  redis.call("ZREM", K.ready, worker)
end
end_due()
offer_free()
if good and not was_ready then return reply("ready") end
return reply(was_ready and over and not good and "unready" or "same")
