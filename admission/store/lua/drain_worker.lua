--[[
drain_worker - no new requests for this worker; what runs finishes.

ARGV
  now_ms      int   0 = Redis TIME
  policy      json  the pool's settings
  worker      str
  token_hash  str   hash of its own token, or '' for an admin
RETURNS
  draining  null
  unknown   null
  foreign   null
]]
local worker, token_hash = ARGV[3], ARGV[4]
local raw = redis.call("HGET", K.workers, worker)
if not raw then return reply("unknown") end
local facts = cjson.decode(raw)
if token_hash ~= "" and facts.token_hash ~= token_hash then return reply("foreign") end
facts.draining = true
redis.call("HSET", K.workers, worker, cjson.encode(facts))
redis.call("ZREM", K.ready, worker)
return reply("draining")
