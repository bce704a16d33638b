-- facts: what every script of conversations begins with; ARGV[1] is now_ms, read by the clock.
-- KEYS[1] the user's threads (hash), KEYS[2] the messages (list) of the one named.

local THREADS, MESSAGES, LIFE_MS = KEYS[1], KEYS[2], tonumber(ARGV[2])

local function alive(facts) return facts.used_ms + LIFE_MS > NOW end

local function load_thread(thread)
  local raw = redis.call("HGET", THREADS, thread)
  local facts = raw and cjson.decode(raw)
  return facts and alive(facts) and facts or nil
end

-- Each use begins the life anew. A key's own expiry only collects the garbage: the rule is alive().
local function save_thread(thread, facts)
  facts.used_ms = NOW
  redis.call("HSET", THREADS, thread, cjson.encode(facts))
  redis.call("PEXPIRE", THREADS, LIFE_MS)
  redis.call("PEXPIRE", MESSAGES, LIFE_MS)
end

-- Room for one more among threads_max: what is over goes, and then the longest unused. The caller
-- removes their messages, whose keys this script has not declared.
local function make_room(threads_max)
  local gone = {}
  if redis.call("HLEN", THREADS) < threads_max then return gone end
  local kept, oldest = 0, nil
  local all = redis.call("HGETALL", THREADS)
  for i = 1, #all, 2 do
    local facts = cjson.decode(all[i + 1])
    if not alive(facts) then
      gone[#gone + 1] = all[i]
    else
      kept = kept + 1
      if not oldest or facts.used_ms < oldest.used_ms then
        oldest = { thread = all[i], used_ms = facts.used_ms }
      end
    end
  end
  if kept >= threads_max then gone[#gone + 1] = oldest.thread end
  redis.call("HDEL", THREADS, unpack(gone))
  return gone
end

-- What lies in MESSAGES of a thread that is over belongs to nobody.
local function new_thread(facts)
  redis.call("DEL", MESSAGES)
  facts.created_ms, facts.bytes, facts.cleared = NOW, 0, 0
  return facts
end

local function reply(tag, ...) return { tag, ... } end
