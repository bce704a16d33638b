--[[
configure - keep an admin's settings for the pool, which win over the service's until put to null;
and the service's own, for processes that have none.

ARGV
  now_ms   int   0 = Redis TIME
  policy   json  the pool's settings from the environment
  changes  json  name -> value, or null to forget it
RETURNS
  configured  null
]]
redis.call("HSET", K.pool, "defaults", cjson.encode(DEFAULTS))
for name, value in pairs(cjson.decode(ARGV[3])) do
  if value == cjson.null then
    redis.call("HDEL", K.pool, "set:" .. name)
    POLICY[name] = DEFAULTS[name]
  else
    redis.call("HSET", K.pool, "set:" .. name, cjson.encode(value))
    POLICY[name] = value
  end
end
end_due()
offer_free()
return reply("configured")
