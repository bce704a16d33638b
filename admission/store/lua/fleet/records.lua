-- records: instances and the lines of their history. A record is a text "LAYOUT VERSION STATE JSON",
-- of which scripts read the head alone; changes are {id, version that was read, record}, lines
-- {id, event, record or ""}.

local function head(record)
  local layout, version, state = record:match("^(%d+) (%d+) (%S+) ")
  return tonumber(layout), tonumber(version), state
end

-- Why these may not be written, or nil. "done": they are just so already, as after a lost reply.
local function obstacle(changes)
  local done, stale = #changes > 0, false
  for _, change in ipairs(changes) do
    local id, read_version, record = unpack(change)
    local known, layout, version = redis.call("HGET", FLEET.instances, id), 0, 0
    if known then layout, version = head(known) end
    if layout > (head(record)) then return "newer" end
    done = done and known == record
    stale = stale or version ~= read_version
  end
  if done then return "done" end
  return stale and "stale" or nil
end

local function add_line(id, event, lines_max)
  if redis.call("HEXISTS", FLEET.instances, id) == 0 then return end
  local kept = redis.call("HGET", FLEET.lines, id)
  kept = kept and kept .. "\n" .. event or event
  while #kept > lines_max do kept = kept:match("\n(.*)$") end
  redis.call("HSET", FLEET.lines, id, kept)
end

-- "12-3" as two numbers: ids of a stream are in their order, not in that of texts.
local function follows(entry, other)
  local ms, number = entry:match("(%d+)-(%d+)")
  local other_ms, other_number = other:match("(%d+)-(%d+)")
  ms, other_ms = tonumber(ms), tonumber(other_ms)
  return ms > other_ms or (ms == other_ms and tonumber(number) > tonumber(other_number))
end

-- An archived instance is here as long as the last line of its history is.
local function forget(id)
  local known = redis.call("HGET", FLEET.instances, id)
  local _, _, state = head(known or "0 0 archived ")
  if state ~= "archived" then return end
  redis.call("HDEL", FLEET.instances, id)
  redis.call("HDEL", FLEET.lines, id)
end

-- Drop the oldest entries: what is in SQL beyond history_kept, and whatever it is beyond
-- history_max. How many were not in SQL.
local function trim(history_kept, history_max)
  local over = redis.call("XLEN", FLEET.history) - history_kept
  if over <= 0 then return 0 end
  local drained, lost = redis.call("HGET", FLEET.drained, "entry") or "0-0", 0
  local oldest = redis.call("XRANGE", FLEET.history, "-", "+", "COUNT", math.min(over, 100))
  for _, found in ipairs(oldest) do
    local entry, fields = unpack(found)
    if follows(entry, drained) then
      if over <= history_max - history_kept then break end
      lost = lost + 1
    end
    redis.call("XDEL", FLEET.history, entry)
    if #fields == 6 and select(3, head(fields[6])) == "archived" then forget(fields[2]) end
    over = over - 1
  end
  if lost > 0 then redis.call("HINCRBY", FLEET.drained, "lost", lost) end
  return lost
end

-- Write it all; how many entries of the history had to go that were not in SQL.
local function keep(changes, lines, lines_max, history_kept, history_max)
  for _, change in ipairs(changes) do
    redis.call("HSET", FLEET.instances, change[1], change[3])
  end
  for _, line in ipairs(lines) do
    local id, event, record = unpack(line)
    local fields = { "n", id, "e", event }
    if record ~= "" then fields[5], fields[6] = "r", record end
    redis.call("XADD", FLEET.history, "*", unpack(fields))
    add_line(id, event, lines_max)
  end
  return trim(history_kept, history_max)
end
