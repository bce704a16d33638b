--[[
configure - keep an admin's settings for the pool, which win over the service's until put to null;
and the service's own, for processes that have none.

ARGV
  now_ms   int   0 = Redis TIME
  policy   json  the pool's settings from the environment
  changes  json  name -> value, or null to forget it
RETURNS
  configured  null
  occupied    null  somebody waits or holds a slot, so the kind must stay as it is
]]
redis.call("HSET", K.pool, "defaults", cjson.encode(DEFAULTS))
local changes = cjson.decode(ARGV[3])
if changes.kind and changes.kind ~= (POLICY.kind or "session") and occupied() then
  return reply("occupied")
end
for name, value in pairs(changes) do keep_setting(name, value) end
end_due()
offer_free()
return reply("configured")
