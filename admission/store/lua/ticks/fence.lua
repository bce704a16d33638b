-- fence: what a tick writes counts only while nobody else has taken its lease (see fence.py).
-- An epoch is given once, ever: it is its holder's as long as it is the last one, also when the
-- lease ran out and nobody took it.

local function fenced(ticks, tick, epoch)
  local raw = redis.call("HGET", ticks, tick)
  return not raw or cjson.decode(raw).epoch ~= tonumber(epoch)
end
