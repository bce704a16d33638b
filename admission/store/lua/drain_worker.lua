--[[
drain_worker - no new requests for this worker; what runs finishes. What a worker asked for itself
ends when it registers again.

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
local following = facts.following and facts.following.token_hash
if token_hash ~= "" and token_hash ~= facts.token_hash and token_hash ~= following then
  return reply("foreign")
end
facts.draining, facts.drains_itself = true, token_hash ~= "" or facts.drains_itself
redis.call("HSET", K.workers, worker, cjson.encode(facts))
redis.call("ZREM", K.ready, worker)
return reply("draining")
