-- lives: how long sessions last, by those that ended lately and those that run.

local BINS = 60        -- to the longest turn
local age_of, read_lives, survival, share_at
do

local LIVES_LEAST = 20 -- with fewer lives known, any session may last to its cap
local LONGER = 1.25    -- the longest turn looked for, by the longest one known
local PRIOR_LIVES = 0.1 -- of a session thought to have stayed to the cap before any was seen

age_of = function(left) return math.max(0, POLICY.session_ms - left) end

-- The newest lives as {started, life}, since when they are known without a gap, and the longest.
read_lives = function(running)
  local lives, since, longest = {}, NOW, 1
  for i, text in ipairs(redis.call("LRANGE", K.lives, 0, -1)) do
    local ended, life = string.match(text, "^(%d+):(%d+)$")
    since, life = tonumber(ended), tonumber(life)
    lives[i] = { since - life, life }
    longest = math.max(longest, life)
  end
  for _, left in ipairs(running) do longest = math.max(longest, age_of(left)) end
  if #lives < LIVES_LEAST then longest = POLICY.session_ms end
  return lives, since, math.min(POLICY.session_ms, LONGER * longest)
end

-- Kaplan-Meier: share[j] of the sessions outlast j bins (the last one: they stay to the end), and
-- how many ends that rests on. Who began before `since` counts from the age they had then, and the
-- running ones up to their age now: else short lives would count too much, or too little.
survival = function(lives, since, running, bin)
  local ends, steps, parts = {}, {}, {}
  for j = 0, BINS do ends[j], steps[j], parts[j] = 0, 0, 0 end
  local function at_risk(started, life)
    local from, to = math.max(0, since - started) / bin, math.min(life / bin, BINS)
    if from >= to then return false end
    local i, j = math.floor(from), math.floor(to)
    steps[i], parts[i] = steps[i] + 1, parts[i] - (from - i)
    steps[j], parts[j] = steps[j] - 1, parts[j] + (to - j)
    return j < BINS
  end
  for _, known in ipairs(lives) do
    if at_risk(known[1], known[2]) and known[2] < POLICY.session_ms then
      local j = math.floor(known[2] / bin)
      ends[j] = ends[j] + 1
    end
  end
  for _, left in ipairs(running) do at_risk(NOW - age_of(left), age_of(left)) end
  local share, number, whole = { [0] = 1 }, 0, 0
  for j = 0, BINS - 1 do
    whole, number = whole + steps[j], number + ends[j]
    share[j + 1] = share[j] * math.exp(-ends[j] / (whole + parts[j] + PRIOR_LIVES))
  end
  return share, number
end

-- The share at an age in bins, between two of them too.
share_at = function(share, age)
  if age <= 0 then return 1 end
  if age >= BINS then return share[BINS] end
  local j = math.floor(age)
  return share[j] + (share[j + 1] - share[j]) * (age - j)
end

end
