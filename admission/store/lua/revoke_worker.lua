--[[
revoke_worker - take a worker's secrets away and keep its id from coming back until it is released.

ARGV
  now_ms  int   0 = Redis TIME
  policy  json  the pool's settings
  worker  str
RETURNS
  revoked  null
  unknown  null
]]
local worker = ARGV[3]
local raw = redis.call("HGET", K.workers, worker)
if not raw then return reply("unknown") end
local before = cjson.decode(raw)
local facts = { revoked = true, ready = false, reason = "revoked by an admin", slots = before.slots,
  first_seen_ms = before.first_seen_ms, last_seen_ms = before.last_seen_ms,
  identity = before.identity }
redis.call("HSET", K.workers, worker, cjson.encode(facts))
redis.call("ZREM", K.ready, worker)
return reply("revoked")
