--[[
beat - what one clockwork says about once a second: which ticks it ran; its leases are extended, and
those that nobody holds are its own from now on. A word twice said counts once.

ARGV
  now_ms    int   0 = Redis TIME
  owner     str   as people read it, and nobody else's
  lease_ms  int   how long a lease is good for
  words     json  tick -> {period_ms, epoch (0: it holds none), leave, and of this epoch: runs,
                  failures, running_ms (since, ago), last {ended_ms (ago), took_ms, due_ms, error}}
RETURNS
  leases  tick, epoch (0: somebody else holds it), in how many ms it is due, how many the lease is
          good for; tick, ...
]]
local owner, lease_ms = ARGV[2], tonumber(ARGV[3])
local FORGET_MS = 7 * 86400000
local taken = false

-- Is it somebody's? After a failover the clock may be behind: no lease ends later than a new one.
local function held(facts)
  return facts.until_ms > NOW and facts.until_ms <= NOW + lease_ms
end

-- The counts are those since the lease began, so that what was heard before adds nothing.
local function note(facts, word)
  for _, name in ipairs({ "runs", "failures" }) do
    facts[name] = facts[name] + word[name] - facts.heard[name]
    facts.heard[name] = word[name]
  end
  facts.running_ms = word.running_ms and NOW - word.running_ms
  local last = word.last
  if not last then return end
  facts.ended_ms, facts.took_ms = NOW - last.ended_ms, last.took_ms
  facts.due_ms = NOW + last.due_ms
  if last.error then
    facts.error, facts.error_ms = last.error, facts.ended_ms
  else
    facts.done_ms = facts.ended_ms
  end
end

-- The epoch is the time, so that none comes twice even when Redis lost the last ones.
local function take(facts)
  facts.epoch, facts.owner = math.max(facts.epoch + 1, NOW), owner
  facts.heard, taken = { runs = 0, failures = 0 }, true
  if facts.running_ms then facts.due_ms, facts.running_ms = NOW, nil end -- who ran it, died
end

local answer = { "leases" }
for tick, word in pairs(cjson.decode(ARGV[4])) do
  local raw = redis.call("HGET", KEYS[1], tick)
  local facts = raw and cjson.decode(raw)
    or { epoch = -1, until_ms = 0, due_ms = NOW, runs = 0, failures = 0 }
  -- Without an epoch when it did not hear that it got one: the reply was lost.
  local own = facts.epoch == word.epoch or (word.epoch == 0 and facts.owner == owner and held(facts))
  if own then note(facts, word) end
  if not own and not word.leave and not held(facts) then
    take(facts)
    own = true
  end
  if own then
    facts.until_ms = NOW + (word.leave and 0 or lease_ms)
    facts.period_ms = word.period_ms
    facts.due_ms = math.min(facts.due_ms, NOW + word.period_ms)
    redis.call("HSET", KEYS[1], tick, cjson.encode(facts))
  end
  answer[#answer + 1], answer[#answer + 2] = tick, own and not word.leave and facts.epoch or 0
  answer[#answer + 1] = math.max(0, facts.due_ms - NOW)
  answer[#answer + 1] = math.max(0, math.min(facts.until_ms - NOW, lease_ms))
end

if taken then -- which is seldom: forget ticks that nobody runs any more
  local all = redis.call("HGETALL", KEYS[1])
  for i = 1, #all, 2 do
    if cjson.decode(all[i + 1]).until_ms < NOW - FORGET_MS then
      redis.call("HDEL", KEYS[1], all[i])
    end
  end
end
return answer
