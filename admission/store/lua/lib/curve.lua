-- curve: places served by when, as points {ms, position} that never fall; and packed, as it is kept:
-- one flat list of whole numbers, ms and hundredths of a position. Beyond its last point places are
-- served at a steady rate per ms, which grows with time as those who wait lose patience.

local curve_of, prolong, sum_of, packed, reached
do

local POINT = 0.02     -- a point is left out where the line without it is no further off than this
                       -- share of the position
local GROWTH_MOST = 50 -- e^50: beyond, doubles overflow

-- Of steps {from, to, ...}, in the order of `to`: one of their columns.
curve_of = function(steps, column)
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

-- Go on at the steady rate until a moment.
prolong = function(points, rate, quit, until_ms)
  local t, n = points[#points][1], points[#points][2]
  if until_ms <= t then return end
  local function growth(ms) return math.exp(math.min(quit * ms, GROWTH_MOST)) end
  local more = rate * (until_ms - t) * growth(t)
  if quit * (until_ms - t) > 1e-6 then more = rate * (growth(until_ms) - growth(t)) / quit end
  points[#points + 1] = { until_ms, n + more }
end

-- Both together.
sum_of = function(a, b)
  local points, i, j = {}, 1, 1
  local function level(of, k, t) -- before its k-th point
    local from, to = of[math.max(1, k - 1)], of[math.min(k, #of)]
    if t <= from[1] or to[1] == from[1] then return from[2] end
    return from[2] + (to[2] - from[2]) * math.min(1, (t - from[1]) / (to[1] - from[1]))
  end
  while i <= #a or j <= #b do
    if j > #b or (i <= #a and a[i][1] <= b[j][1]) then
      points[#points + 1] = { a[i][1], a[i][2] + level(b, j, a[i][1]) }
      i = i + 1
    else
      points[#points + 1] = { b[j][1], b[j][2] + level(a, i, b[j][1]) }
      j = j + 1
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

packed = function(points)
  local flat = {}
  for _, point in ipairs(thin(points)) do
    flat[#flat + 1] = math.floor(point[1] + 0.5)
    flat[#flat + 1] = math.floor(100 * point[2] + 0.5)
  end
  return flat
end

-- When a packed curve reaches `place`.
reached = function(points, rate, quit, place)
  local low, high = 1, #points / 2
  if 100 * place > points[2 * high] then
    local t, beyond = points[2 * high - 1], place - points[2 * high] / 100
    local now = rate * math.exp(quit * t)
    if quit * beyond < 1e-6 * now then return t + beyond / now end
    return t + math.log(1 + quit * beyond / now) / quit
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

end
