--[[
report_worker - a heartbeat: what the worker is and whether it may get requests. A new ready worker
moves the queue at once. With a new token the secrets that came with it replace the former.

ARGV
  now_ms      int   0 = Redis TIME
  policy      json  the pool's settings
  worker      str
  report      json  {ready, reason, slots, report}, and identity for a static upstream
  token_hash  str   hash of its own token; '' for a static upstream, which is created by its report
  lease_ms    int   how long the report is good for
RETURNS
  reported  {ready, reason, draining, rotate}  rotate: it is to register for new secrets
  unknown   null
  foreign   null  not this worker's token
  revoked   null  an admin revoked it
]]
local worker, report, token_hash = ARGV[3], cjson.decode(ARGV[4]), ARGV[5]
local lease_ms = tonumber(ARGV[6])
local raw = redis.call("HGET", K.workers, worker)
if not raw and token_hash ~= "" then return reply("unknown") end
local facts = raw and cjson.decode(raw) or { first_seen_ms = NOW }
if facts.revoked then return reply("revoked") end
if facts.following and facts.following.token_hash == token_hash then
  facts.token_hash, facts.identity = token_hash, facts.following.identity
  facts.following, facts.rotate = nil, nil
end
if (facts.token_hash or "") ~= token_hash then return reply("foreign") end
facts.reason = nil
for name, value in pairs(report) do facts[name] = value end
facts.last_seen_ms = NOW
local routable = facts.ready and not facts.draining and not facts.verdict
if routable then
  redis.call("ZADD", K.ready, NOW + lease_ms, worker)
else
  redis.call("ZREM", K.ready, worker)
end
redis.call("HSET", K.workers, worker, cjson.encode(facts))
end_due()
offer_free()
return reply("reported", { ready = routable or false, reason = facts.verdict or facts.reason,
  draining = facts.draining or false, rotate = facts.rotate or false })
