--[[
rotate_worker - have a worker fetch new secrets at its next heartbeat; until it uses them the former
hold.

ARGV
  now_ms  int   0 = Redis TIME
  policy  json  the pool's settings
  worker  str
RETURNS
  rotating  null
  unknown   null
  static    null  a static upstream has no secrets
]]
local worker = ARGV[3]
local raw = redis.call("HGET", K.workers, worker)
local facts = raw and cjson.decode(raw)
if not facts or facts.revoked then return reply("unknown") end
if not facts.token_hash then return reply("static") end
facts.rotate = true
redis.call("HSET", K.workers, worker, cjson.encode(facts))
return reply("rotating")
