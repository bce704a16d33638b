--[[
register_worker - give a worker its place in the registry; a known one only by its own token.

ARGV
  now_ms      int   0 = Redis TIME
  policy      json  the pool's settings
  worker      str
  facts       json  {slots, token_hash, identity}; identity and report are JSON texts this script
                    keeps unread (Lua cannot tell an empty list from an empty object)
  token_hash  str   hash of the key it came with
RETURNS
  registered  null
  taken       null  another worker has this id
]]
local worker, facts, presented = ARGV[3], cjson.decode(ARGV[4]), ARGV[5]
local raw = redis.call("HGET", K.workers, worker)
local before = raw and cjson.decode(raw)
local repeated = before and before.token_hash == facts.token_hash -- its reply was lost
if before and before.token_hash ~= presented and not repeated then return reply("taken") end
facts.first_seen_ms = before and before.first_seen_ms or NOW
facts.last_seen_ms, facts.ready, facts.reason = NOW, false, "registered"
redis.call("HSET", K.workers, worker, cjson.encode(facts))
redis.call("ZREM", K.ready, worker)
return reply("registered")
