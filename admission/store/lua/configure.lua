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
keep_defaults()

-- Layout 1 kept each setting in a field of its own.
local function take_over_settings()
  local stored = redis.call("HGETALL", K.pool)
  for i = 1, #stored, 2 do
    local name = string.match(stored[i], "^set:(.+)$")
    if name then
      keep_setting(name, cjson.decode(stored[i + 1]))
      redis.call("HDEL", K.pool, stored[i])
    end
  end
end

take_over_settings()
local changes = cjson.decode(ARGV[3])
local kind = changes.kind
if kind == cjson.null then kind = given_policy().kind end
if kind and kind ~= POLICY.kind and occupied() then return reply("occupied") end
for name, value in pairs(changes) do keep_setting(name, value) end
end_due()
if REQUESTS then promote_all() end
offer_free()
return reply("configured")
