-- lives: how long sessions last, by those that ended lately and those that run.

local BINS = 60        -- to the longest turn
local age_of, read_lives, survival, share_at
do

local LONGER = 1.25      -- the longest turn looked for, by the longest one known,
local FEW = 2            -- and as long as so few ended early, the cap; of n times as many its n-th
local PRIOR_SHARE = 0.02 -- of its cap that somebody is thought to have stayed before any was seen
local PRIOR_LIVES = 0.1  -- of a session thought to end at the usual rate, at any age

age_of = function(left) return math.max(0, POLICY.session_ms - left) end

-- The newest lives as {started, life}, since when they are known without a gap, the longest turn
-- looked for, and the usual one: time held by each that ended before its cap; huge before any did.
read_lives = function(running)
  local lives, since, longest = {}, NOW, 1
  local held, early = PRIOR_SHARE * POLICY.session_ms, 0
  for i, text in ipairs(redis.call("LRANGE", K.lives, 0, -1)) do
    local ended, life = string.match(text, "^(%d+):(%d+)$")
    since, life = tonumber(ended), tonumber(life)
    lives[i] = { since - life, life }
    longest, held = math.max(longest, life), held + life
    if life < POLICY.session_ms then early = early + 1 end
  end
  for _, left in ipairs(running) do
    longest, held = math.max(longest, age_of(left)), held + age_of(left)
  end
  longest = math.min(POLICY.session_ms, math.max(LONGER * longest, POLICY.session_ms * FEW / early))
  return lives, since, longest, held / early
end

-- Kaplan-Meier: share[j] of the sessions outlast j bins (the last one: they stay to the end), and
-- how many ends that rests on. Who began before `since` counts from the age they had then, and the
-- running ones up to their age now: else short lives would count too much, or too little. Where few
-- or none came, sessions end at the usual rate.
survival = function(lives, since, running, bin, usual)
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
  local share, number, whole, few = { [0] = 1 }, 0, 0, PRIOR_LIVES * bin / usual
  for j = 0, BINS - 1 do
    whole, number = whole + steps[j], number + ends[j]
    share[j + 1] = share[j] * math.exp(-(ends[j] + few) / (whole + parts[j] + PRIOR_LIVES))
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
