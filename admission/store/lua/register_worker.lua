--[[
register_worker - give a worker its place in the registry; a known one only by its own token, and
then its former secrets hold until it uses the new ones: a lost reply locks nobody out, and no
gateway uses a key that the worker does not have yet.

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
  revoked     null  an admin revoked it, and has not released it since
]]
local UNUSED_MS = 30000 -- secrets nobody used for so long never arrived: the id is free again
local worker, facts, presented = ARGV[3], cjson.decode(ARGV[4]), ARGV[5]
local raw = redis.call("HGET", K.workers, worker)
local before = raw and cjson.decode(raw)
if before and before.revoked then return reply("revoked") end
if before and before.token_hash == facts.token_hash then return reply("registered") end -- repeated
local waiting = before and before.following and before.following.token_hash
local own = before and (before.token_hash == presented or waiting == presented)
if own or (waiting and waiting == facts.token_hash) then
  before.following, before.last_seen_ms = facts, NOW
  if not before.rotate or before.drains_itself then -- it started anew
    before.ready, before.reason, before.draining = false, "registered", nil
    before.drains_itself = nil
    redis.call("ZREM", K.ready, worker)
  end
  redis.call("HSET", K.workers, worker, cjson.encode(before))
  return reply("registered")
end
local lost = before and before.token_hash and not before.report
if before and not (lost and before.last_seen_ms + UNUSED_MS <= NOW) then return reply("taken") end
facts.first_seen_ms = before and before.first_seen_ms or NOW
facts.last_seen_ms, facts.ready, facts.reason = NOW, false, "registered"
redis.call("HSET", K.workers, worker, cjson.encode(facts))
redis.call("ZREM", K.ready, worker)
return reply("registered")
