-- estimate: how long until a position is served. The forecast is made at most once a second, kept as
-- two curves (value and high value), and read for any position.

local estimate, renew_forecast

-- What an estimate asks of the pool first: the slots that may be granted, and those that are free.
-- A script that asks for many places and moves nobody meanwhile reads it once.
local function pool_now()
  return { slots = granting() and capacity() or 0, free = free_slots() }
end

do

-- Made anew after, and not read any more after; also before: another host's clock may be behind.
local FRESH_MS, STALE_MS = 1000, 5000
local LEAST_MS = 1000  -- nobody is told that no time is left while no slot is free
local MEDIAN = 1 / 3   -- the middle of the times at which the n-th of many events comes is that of
                       -- the mean of n - 1/3 (the median of a gamma distribution)
local ROOM = 1.5       -- so many times the present queue is covered

-- {made_ms, slots, covers, value, high, rate, quit, served, alone}: curves, the steady rate of slots
-- per ms beyond them, the rate at which one who waits loses patience, how many had been served; and
-- while machines are coming, {value, high, rate} without them.
local FORECAST, SERVED
local function make(position)
  local covers = math.ceil(ROOM * math.max(position, waiting_count() + 1))
  local steps, course = forecast_slots(covers)
  local value, high = curve_of(steps, 3), curve_of(steps, 4)
  FORECAST = { made_ms = NOW, slots = capacity(), covers = covers, value = packed(value),
    high = packed(high), rate = course.rate, quit = course.quit, served = SERVED }
  if coming_slots() > 0 then
    FORECAST.alone = { value = FORECAST.value, high = FORECAST.high, rate = FORECAST.rate }
    FORECAST.value, FORECAST.rate = packed(add_coming(value, course, 0)), course.later_rate
    FORECAST.high = packed(add_coming(high, course, course.z))
  end
end

local function read()
  local kept = redis.call("HMGET", K.forecast, "curves", "served")
  SERVED = tonumber(kept[2]) or 0
  FORECAST = kept[1] and cmsgpack.unpack(kept[1])
end

local function usable(position, age_ms, slots)
  return FORECAST and math.abs(NOW - FORECAST.made_ms) <= age_ms and FORECAST.slots == slots
    and position <= FORECAST.covers
end

-- Milliseconds (value, high value) until `position` is offered a slot; nil when it cannot be known.
-- 0 only when a slot is free. Reads; never writes. `pool`: from pool_now, where many are asked.
-- `alone`: as if no machine were coming.
estimate = function(position, pool, alone)
  pool = pool or pool_now()
  if pool.slots < 1 and (alone or coming_slots() < 1) then return nil end
  if position <= pool.free then return 0, 0 end
  if FORECAST == nil then read() end
  if not usable(position, STALE_MS, pool.slots) then make(position) end
  local place, passed = position + SERVED - FORECAST.served, NOW - FORECAST.made_ms
  local function by(curves)
    local quit = FORECAST.quit
    return reached(curves.value, curves.rate, quit, place - MEDIAN) - passed,
      reached(curves.high, curves.rate, quit, place) - passed
  end
  local value, high = by(alone and FORECAST.alone or FORECAST)
  if FORECAST.alone then -- of curves of so few points the one that has more may be the lower one
    local at_most, high_at_most = by(FORECAST.alone)
    value, high = math.min(value, at_most), math.min(high, high_at_most)
  end
  value = math.max(LEAST_MS, value)
  return value, math.max(value, high)
end

-- Keep a young forecast while somebody waits: called at the end of every script that writes. Most
-- calls end at the first comparison.
renew_forecast = function()
  local made = redis.call("HMGET", K.forecast, "made_ms", "slots", "covers")
  local waiting = waiting_count()
  if math.abs(NOW - (tonumber(made[1]) or 0)) <= FRESH_MS and tonumber(made[2]) == capacity()
    and waiting <= tonumber(made[3]) then return end
  judge_promises()
  if waiting == 0 or POLICY.paused then return end
  if (not granting() or capacity() < 1) and coming_slots() < 1 then return end
  if FORECAST == nil then read() end
  if not usable(waiting, 0, capacity()) then make(waiting) end
  promise(function(position) return (select(2, estimate(position))) end)
  count_waiting()
  redis.call("HSET", K.forecast, "curves", cmsgpack.pack(FORECAST), "made_ms", exact(NOW),
    "slots", FORECAST.slots, "covers", FORECAST.covers)
end

end
