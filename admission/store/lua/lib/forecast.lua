-- forecast: how many slots will have come free by when. Time ahead is cut into bins; each holds the
-- number of slots expected to come free in it: those of running sessions by the survival curve of
-- the lives before them and their hard ends, those of drafts by who confirms, and those of turns
-- that begin in earlier bins. It is a mean, with a variance for the high value.

local forecast_slots, taken_again
do

local ROUNDS = 3       -- of the longest turn are looked ahead; beyond, slots free at a steady rate
local DRAFT_AGES = 20  -- drafts of about one age are counted as one
local PRIOR_DRAFTS = 2 -- drafts thought to have been confirmed
local PRIOR_WAITED_MS = 1800000 -- waiting without anybody leaving, before any was seen
local NOBODY_LEFT = 50 -- by e^50 so few of those who wait now still do; beyond, doubles overflow

-- What holds a slot now: ms until its deadline, each.
local function left_of(key)
  local found = redis.call("ZRANGEBYSCORE", key, string.format("(%.0f", NOW), "+inf", "WITHSCORES")
  local left = {}
  for i = 2, #found, 2 do left[#left + 1] = tonumber(found[i]) - NOW end
  return left
end

-- What is known of turns: lives, drafts, patience.
local function read_turns(running)
  local sums = learned()
  local lives, since, longest, usual = read_lives(running)
  local bin = longest / BINS
  local share, ends = survival(lives, since, running, bin, usual)
  local drafts = sums.confirmed + sums.dropped
  return { bin = bin, share = share, ends = ends, longest = longest, drafts = drafts,
    no_show = sums.dropped / (drafts + PRIOR_DRAFTS),
    confirm_ms = sums.confirmed > 0 and sums.confirm_ms / sums.confirmed or 0,
    drop_ms = sums.dropped > 0 and math.min(POLICY.draft_ms, sums.dropped_ms / sums.dropped)
      or POLICY.draft_ms,
    impatience = sums.gone / (sums.waited_ms + PRIOR_WAITED_MS), z = sums.z }
end

-- Bins of releases: how many, between which moments, and the variance of all up to there.
local function new_bins(bin)
  local grid = { bin = bin, last = ROUNDS * BINS, slots = {}, low = {}, high = {}, variance = {} }
  for j = 1, grid.last do grid.slots[j], grid.variance[j] = 0, 0 end
  return grid
end

-- A release at one moment; several in a bin spread between the first and the last.
local function add_at(grid, t, slots)
  local j = math.max(1, math.ceil(t / grid.bin))
  if slots <= 0 or j > grid.last then return end
  grid.slots[j] = grid.slots[j] + slots
  grid.low[j] = math.min(grid.low[j] or t, t)
  grid.high[j] = math.max(grid.high[j] or t, t)
end

-- Releases anywhere in a bin.
local function add_in(grid, j, slots)
  if slots <= 0 or j > grid.last then return end
  grid.slots[j] = grid.slots[j] + slots
  grid.low[j], grid.high[j] = (j - 1) * grid.bin, j * grid.bin
end

-- Those of about one age together: {number, mean age}.
local function by_age(lefts, whole_ms, width)
  local groups, found = {}, {}
  for _, left in ipairs(lefts) do
    local age = math.max(0, whole_ms - left)
    local key = math.floor(age / width)
    if not groups[key] then
      groups[key] = { n = 0, age = 0 }
      found[#found + 1] = groups[key]
    end
    local group = groups[key]
    group.age = (group.age * group.n + age) / (group.n + 1)
    group.n = group.n + 1
  end
  return found
end

local function add_sessions(grid, turns, running)
  local share, bin = turns.share, turns.bin
  local capped = turns.longest == POLICY.session_ms
  for _, left in ipairs(running) do -- who stays to the end, each at their own
    local age = age_of(left)
    local ends = capped and left or math.max(math.min(bin, left), turns.longest - age)
    add_at(grid, ends, share[BINS] / share_at(share, age / bin))
  end
  for _, group in ipairs(by_age(running, POLICY.session_ms, bin)) do
    local age = group.age / bin
    local now, before = share_at(share, age), 1
    for j = 1, math.ceil(BINS - age) do
      local stays = share_at(share, age + j) / now
      add_in(grid, j, group.n * (before - stays))
      if age + j < BINS then
        grid.variance[j] = grid.variance[j] + group.n * stays * (1 - stays)
      end
      before = stays
    end
  end
end

local function add_drafts(grid, turns, drafts)
  local share, bin = turns.share, turns.bin
  for _, group in ipairs(by_age(drafts, POLICY.draft_ms, POLICY.draft_ms / DRAFT_AGES)) do
    local age = group.age
    local late = turns.confirm_ms > 0 and math.exp(-age / turns.confirm_ms) or 1
    local drops = turns.no_show / (turns.no_show + (1 - turns.no_show) * late)
    local left = POLICY.draft_ms - age
    if turns.drop_ms > age then left = math.min(left, turns.drop_ms - age) end
    local starts = turns.confirm_ms / bin
    add_at(grid, left, group.n * drops)
    for j = 1, BINS do
      add_in(grid, math.ceil(j + starts), group.n * (1 - drops) * (share[j - 1] - share[j]))
      local free = (j * bin < left and 0 or drops) + (1 - drops) * (1 - share_at(share, j - starts))
      grid.variance[j] = grid.variance[j] + group.n * free * (1 - free)
    end
    add_at(grid, turns.confirm_ms + turns.longest, group.n * (1 - drops) * share[BINS])
  end
end

-- How long a turn that begins now will hold its slot: the share per number of bins, its mean in ms
-- and its squared coefficient of variation.
local function holding(turns)
  local share, bin, stays = turns.share, turns.bin, 1 - turns.no_show
  local hold, mean, square = {}, 0, 0
  for j = 0, ROUNDS * BINS do hold[j] = 0 end -- a draft may take a million bins of short turns
  local function add(j, part)
    if hold[j] then hold[j] = hold[j] + part end
    mean, square = mean + part * j * bin, square + part * (j * bin) ^ 2
  end
  local function put(ms, part)
    local j = math.floor(ms / bin)
    add(j, part * (j + 1 - ms / bin))
    add(j + 1, part * (ms / bin - j))
  end
  put(turns.drop_ms, turns.no_show)
  for j = 1, BINS do put(turns.confirm_ms + (j - 0.5) * bin, stays * (share[j - 1] - share[j])) end
  put(turns.confirm_ms + turns.longest, stays * share[BINS])
  return hold, mean, math.max(0, square / mean ^ 2 - 1)
end

-- Relative variance of the rate at which slots come free, for what is known only from samples.
local function doubt(turns, mean_ms)
  local lives = (1 - turns.share[BINS]) ^ 2 / math.max(1, turns.ends)
  local shows = turns.no_show * (1 - turns.no_show) / (turns.drafts + PRIOR_DRAFTS)
  return lives + shows * ((mean_ms - turns.drop_ms) / mean_ms) ^ 2
end

-- Slots that come free in bin j and were taken in an earlier one.
taken_again = function(j, begun, hold)
  local again = 0
  for i = 1, math.min(j - 1, #hold) do again = again + begun[j - i] * hold[i] end
  return again
end

-- Slots that come free in each bin whatever happens, and the last moment at which: everything that
-- holds one has a hard end, and who takes it up then is gone a draft and a session later. Those of
-- the surplus, which end first, nobody takes up.
local function certain(grid, running, drafts, finishing, surplus)
  local ends, number, at_ms = {}, {}, {}
  for _, left in ipairs(running) do ends[#ends + 1] = left end
  for _, left in ipairs(drafts) do ends[#ends + 1] = left + POLICY.session_ms end
  for _, left in ipairs(finishing) do ends[#ends + 1] = left end
  if surplus > 0 then table.sort(ends) end
  for i, first in ipairs(ends) do
    local last = i <= surplus and first or grid.last * grid.bin
    for t = first, last, POLICY.draft_ms + POLICY.session_ms do
      local j = math.max(1, math.ceil(t / grid.bin))
      number[j], at_ms[j] = (number[j] or 0) + 1, math.max(at_ms[j] or 0, t)
    end
  end
  return number, at_ms
end

-- Until `wanted` places are served: a list of {from, to, served, served at least} per bin, in ms
-- from now and places. With impatience q, who stands n-th is served once n <= the sum of
-- e^(q t) over the slots that came free at t: n e^(-q t) of those places are still taken then.
-- Also the course on which slots that come later are put: how many came free up to the end of each
-- bin and the variance of that, what turns are like, and the steady rate per ms beyond the bins.
forecast_slots = function(wanted)
  local running = left_of(K.sessions)
  local turns = read_turns(running)
  local grid = new_bins(turns.bin)
  add_sessions(grid, turns, running)
  local drafts, finishing = left_of(K.drafts), left_of(K.finishing)
  add_drafts(grid, turns, drafts)
  for _, left in ipairs(finishing) do add_at(grid, left, 1) end
  local surplus, quit = busy() - capacity(), turns.impatience
  local sure_number, sure_ms = certain(grid, running, drafts, finishing, surplus)
  local hold, mean, variation = holding(turns)
  local unsure = doubt(turns, mean)
  local function growth_by(t) return math.exp(math.min(quit * t, NOBODY_LEFT)) end
  local short, sure = math.min(hold[0], 0.9), -surplus
  local course = { bin = grid.bin, freed = {}, variance = {}, surplus = surplus, hold = hold,
    short = short, mean = mean, variation = variation, unsure = unsure, z = turns.z, quit = quit,
    growth_by = growth_by, rate = capacity() / mean }
  local freed, again, served, begun, steps = 0, 0, 0, {}, {}
  for j = 1, grid.last do
    local second = taken_again(j, begun, hold)
    if freed >= surplus then -- turns so short that they begin and end in this bin, over and over
      second = second + (grid.slots[j] + second) * short / (1 - short)
    end
    add_in(grid, j, second > 1e-6 and second or 0)
    local usable = math.max(0, freed - surplus)
    freed, again = freed + grid.slots[j], again + second
    begun[j] = math.max(0, freed - surplus) - usable
    sure = sure + (sure_number[j] or 0)
    local variance = grid.variance[j] + variation * again + unsure * freed ^ 2
    course.freed[j], course.variance[j] = freed, variance
    if capacity() > 0 and (grid.slots[j] > 1e-6 or sure_number[j]) then
      local to = math.max(grid.high[j] or 0, sure_ms[j] or 0)
      local from = grid.low[j] or to
      local growth = growth_by(to)
      served = served + begun[j] * growth_by((from + to) / 2)
      variance = variance + served * (1 - 1 / growth) / growth
      local at_least = math.max(sure, served - turns.z * growth * math.sqrt(variance))
      steps[#steps + 1] = { from, to, math.max(sure, served), at_least }
      if at_least > wanted then break end
    end
  end
  return steps, course
end

end
