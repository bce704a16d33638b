-- estimate: how long until a position is served. The forecast is made at most once a second, kept as
-- two curves (value and high value) of a few points, and read for any position.

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
local POINT = 0.02     -- a point is left out where the line without it is no further off than this
                       -- share of the position

-- The steps' last column as a curve that never falls: points {ms, position}.
local function curve(steps, column)
  local points, best = { { 0, 0 } }, 0
  for _, step in ipairs(steps) do
    if step[column] > best then
      if step[1] > points[#points][1] then points[#points + 1] = { step[1], best } end
      best = step[column]
      points[#points + 1] = { step[2], best }
    end
  end
  return points
end

-- Fewer points: from each kept one as far ahead as one straight line stays near all between.
local function thin(points)
  local kept, from, low, high = { points[1] }, points[1], -math.huge, math.huge
  local function keep(point)
    if kept[#kept] ~= point then kept[#kept + 1] = point end
    from, low, high = point, -math.huge, math.huge
  end
  for i = 2, #points do
    local before, point = points[i - 1], points[i]
    if point[1] == before[1] then
      keep(before)
      keep(point)
    else
      local slope = (point[2] - from[2]) / (point[1] - from[1])
      if slope < low or slope > high then keep(before) end
      local width, off = point[1] - from[1], POINT * (1 + point[2])
      low = math.max(low, (point[2] - off - from[2]) / width)
      high = math.min(high, (point[2] + off - from[2]) / width)
    end
  end
  keep(points[#points])
  return kept
end

-- As one flat list of whole numbers: ms and hundredths of a position.
local function packed(points)
  local flat = {}
  for _, point in ipairs(thin(points)) do
    flat[#flat + 1] = math.floor(point[1] + 0.5)
    flat[#flat + 1] = math.floor(100 * point[2] + 0.5)
  end
  return flat
end

-- {made_ms, slots, covers, value, high, rate, quit, served}: curves, the steady rate of slots per ms
-- beyond them, the rate at which one who waits loses patience, and how many had been served.
local FORECAST, SERVED
local function make(position)
  local covers = math.ceil(ROOM * math.max(position, waiting_count() + 1))
  local steps, rate, quit = forecast_slots(covers)
  FORECAST = { made_ms = NOW, slots = capacity(), covers = covers, value = packed(curve(steps, 3)),
    high = packed(curve(steps, 4)), rate = rate, quit = quit, served = SERVED }
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

-- When the curve reaches `place`, in ms after it was made.
local function reached(points, place)
  local low, high = 1, #points / 2
  if 100 * place > points[2 * high] then
    local t, beyond = points[2 * high - 1], place - points[2 * high] / 100
    local rate = FORECAST.rate * math.exp(FORECAST.quit * t)
    if FORECAST.quit * beyond < 1e-6 * rate then return t + beyond / rate end
    return t + math.log(1 + FORECAST.quit * beyond / rate) / FORECAST.quit
  end
  while low < high do
    local middle = math.floor((low + high) / 2)
    if points[2 * middle] >= 100 * place then high = middle else low = middle + 1 end
  end
  local t, n = points[2 * low - 1], points[2 * low]
  if low == 1 then return t end
  local t0, n0 = points[2 * low - 3], points[2 * low - 2]
  return t0 + (t - t0) * (100 * place - n0) / math.max(1, n - n0)
end

-- Where there are no slots: what the scheduler said last of those that come, at most 30 s ago, as
-- "slots at_ms said_ms". For whom they do not suffice nothing is known.
local COMING_MS, COMING = 30000, nil
local function first_slots(position)
  if POLICY.paused then return nil end
  if COMING == nil then COMING = redis.call("HGET", K.pool, "coming") end
  if not COMING then return nil end
  local slots, at_ms, said_ms = COMING:match("^(%d+) (%d+) (%d+)$")
  if NOW - said_ms > COMING_MS or position > tonumber(slots) then return nil end
  local wait_ms = math.max(LEAST_MS, at_ms - NOW)
  return wait_ms, wait_ms
end

-- Milliseconds (value, high value) until `position` is offered a slot; nil when it cannot be known.
-- 0 only when a slot is free. Reads; never writes. `pool`: from pool_now, where many are asked.
estimate = function(position, pool)
  pool = pool or pool_now()
  if pool.slots < 1 then return first_slots(position) end
  if position <= pool.free then return 0, 0 end
  if FORECAST == nil then read() end
  if not usable(position, STALE_MS, pool.slots) then make(position) end
  local place, passed = position + SERVED - FORECAST.served, NOW - FORECAST.made_ms
  local value = math.max(LEAST_MS, reached(FORECAST.value, place - MEDIAN) - passed)
  return value, math.max(value, reached(FORECAST.high, place) - passed)
end

-- Keep a young forecast while somebody waits: called at the end of every script that writes. Most
-- calls end at the first comparison.
renew_forecast = function()
  local made = redis.call("HMGET", K.forecast, "made_ms", "slots", "covers")
  local waiting = waiting_count()
  if math.abs(NOW - (tonumber(made[1]) or 0)) <= FRESH_MS and tonumber(made[2]) == capacity()
    and waiting <= tonumber(made[3]) then return end
  judge_promises()
  if waiting == 0 or not granting() or capacity() < 1 then return end
  if FORECAST == nil then read() end
  if not usable(waiting, 0, capacity()) then make(waiting) end
  promise(function(position) return (select(2, estimate(position))) end)
  count_waiting()
  redis.call("HSET", K.forecast, "curves", cmsgpack.pack(FORECAST), "made_ms", exact(NOW),
    "slots", FORECAST.slots, "covers", FORECAST.covers)
end

end
