-- coming: machines that are being started, as the scheduler said last, and what they add to the
-- forecast. A machine brings all its slots at one moment or none: that is no matter of means and
-- variances. So it adds nothing before the moment at which it is expected, and to the high value
-- nothing until so many of its deviations later as the high value is above the mean; from then on
-- its slots, and the turns that end in them.

local expect, coming_slots, add_coming
do

local BELIEVED_MS = 30000 -- what was said; a scheduler says it anew every 5 s

-- {slots, at_ms, spread_ms} of each whose worker is not ready yet, the soonest first; no more slots
-- than the pool may have.
local COMING
local function coming()
  if COMING then return COMING end
  COMING = {}
  if POLICY.capacity ~= "auto" or POLICY.paused then return COMING end
  local raw = redis.call("HGET", K.pool, "machines")
  local said = raw and cmsgpack.unpack(raw)
  if not said or math.abs(NOW - said.said_ms) > BELIEVED_MS then return COMING end
  local room = POLICY.max_active - capacity()
  for _, machine in ipairs(said.machines) do
    local worker, slots = machine[1], math.min(machine[2], room)
    if slots > 0 and (tonumber(redis.call("ZSCORE", K.ready, worker)) or 0) <= NOW then
      COMING[#COMING + 1] = { slots = slots, at_ms = machine[3], spread_ms = machine[4] }
      room = room - slots
    end
  end
  return COMING
end

coming_slots = function()
  local slots = 0
  for _, machine in ipairs(coming()) do slots = slots + machine.slots end
  return slots
end

-- The scheduler's newest word, {worker, slots, in ms, deviation in ms} each: what it named before
-- and does not name now comes no more. Forecasts that rest on it are over.
expect = function(machines)
  local before = coming_slots()
  if #machines == 0 then
    redis.call("HDEL", K.pool, "machines")
  else
    for _, machine in ipairs(machines) do machine[3] = NOW + machine[3] end
    table.sort(machines, function(a, b) return a[3] < b[3] end)
    redis.call("HSET", K.pool, "machines",
      cmsgpack.pack({ said_ms = NOW, machines = machines }))
  end
  COMING = nil
  if before + coming_slots() > 0 then redis.call("HDEL", K.forecast, "curves", "made_ms") end
  if before ~= coming_slots() then places_changed() end
end

-- When they come, in ms from now, `z` deviations later than expected: {ms, slots}, by bins and all
-- those after the last one.
local function due(z, bin, bins)
  local by_bin, beyond = {}, {}
  for _, machine in ipairs(coming()) do
    local t = math.max(0, machine.at_ms - NOW + z * machine.spread_ms)
    local j = math.max(1, math.ceil(t / bin))
    local list = beyond
    if j <= bins then
      by_bin[j] = by_bin[j] or {}
      list = by_bin[j]
    end
    list[#list + 1] = { t, machine.slots }
  end
  local function sooner(a, b) return a[1] < b[1] end
  for _, list in pairs(by_bin) do table.sort(list, sooner) end
  table.sort(beyond, sooner)
  return by_bin, beyond
end

-- Steps {from, to, places} of who is served beyond those who would be without these machines, in the
-- bins of the course: at least so many, to `z` deviations. Slots of which there are too many as yet
-- are made up for first.
local function steps_of(course, z, by_bin)
  local bin, surplus, growth_by = course.bin, course.surplus, course.growth_by
  local freed, usable, again, served, sure = 0, 0, 0, 0, 0
  local steps, begun = {}, {}
  local function free(slots, others, t)
    freed = freed + slots
    local before = usable
    usable = math.max(0, others + freed - surplus) - math.max(0, others - surplus)
    served = served + (usable - before) * growth_by(t)
  end
  local function add(j, from, to)
    local variance, others, growth = course.variance[j], course.freed[j], growth_by(to)
    local more = course.variation * again + course.unsure * ((others + again) ^ 2 - others ^ 2)
      + served * (1 - 1 / growth) / growth
    local least = served - z * growth * (math.sqrt(variance + more) - math.sqrt(variance))
    steps[#steps + 1] = { from, to, math.max(sure, least) }
  end
  for j = 1, #course.freed do
    local had, from = usable, (j - 1) * bin
    for _, machine in ipairs(by_bin[j] or {}) do
      local before = usable
      from = machine[1]
      free(machine[2], course.freed[j - 1] or 0, from)
      sure = sure + usable - before
      add(j, from, from)
    end
    local second = freed > 0 and taken_again(j, begun, course.hold) or 0
    if usable > 0 then second = second + (usable - had + second) * course.short / (1 - course.short) end
    again = again + second
    free(second, course.freed[j], (j - 0.5) * bin)
    begun[j] = usable - had
    if usable > had then add(j, from, j * bin) end
  end
  return steps
end

-- A curve of the course, of what there is, and these machines.
add_coming = function(points, course, z)
  local bins, rate, quit = #course.freed, 0, course.quit
  local by_bin, beyond = due(z, course.bin, bins)
  local added = curve_of(steps_of(course, z, by_bin), 3)
  for _, list in pairs(by_bin) do
    for _, machine in ipairs(list) do rate = rate + machine[2] / course.mean end
  end
  prolong(added, rate, quit, bins * course.bin)
  for _, machine in ipairs(beyond) do
    prolong(added, rate, quit, machine[1])
    local served = added[#added][2] + machine[2] * course.growth_by(machine[1])
    added[#added + 1] = { machine[1], served }
    rate = rate + machine[2] / course.mean
  end
  prolong(points, course.rate, quit, added[#added][1])
  prolong(added, rate, quit, points[#points][1])
  course.later_rate = course.rate + rate
  return sum_of(points, added)
end

end
