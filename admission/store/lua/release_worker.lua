--[[
release_worker - forget a worker, so that its id may register anew with the shared token.

ARGV
  now_ms  int   0 = Redis TIME
  policy  json  the pool's settings
  worker  str
RETURNS
  released  null
  unknown   null
]]
local worker = ARGV[3]
redis.call("ZREM", K.ready, worker)
if redis.call("HDEL", K.workers, worker) == 0 then return reply("unknown") end
return reply("released")
