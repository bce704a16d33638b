--[[
expect_slots - hear of all machines that are being started, so that who waits can be told. Those who
were named before and are not now come no more; what is said is believed for 30 s. A pool that there
is not, or not any more, stays so.

ARGV
  now_ms    int   0 = Redis TIME
  policy    json  the pool's settings
  machines  json  a list of [worker, slots, in_ms, spread_ms]: so many slots of the pool in so many
                  ms, with that standard deviation; they count until the worker is ready
RETURNS
  told     null
  unknown  null  there is no such pool
]]
local machines = cjson.decode(ARGV[3])
if redis.call("EXISTS", K.pool) == 0 then return reply("unknown") end
expect(machines)
end_due()
offer_free()
return reply("told")
