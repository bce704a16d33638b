--[[
positions - where many tickets stand, in one call; changes nothing.

ARGV
  now_ms   int   0 = Redis TIME
  policy   json  the pool's settings
  tickets  json  a list of tickets, at most 1000
RETURNS
  places  {now_ms, queue_length, slots, positions, waits_ms, highs_ms, may_be_passed}  lists in the
          order of `tickets`; position 0: not in the order; a wait of -1 cannot be known; slots:
          those that may be granted now or are coming; may_be_passed: absent in a pool without priorities
]]
local tickets = cjson.decode(ARGV[3])
local pool = pool_now()
local positions, waits, highs = {}, {}, {}
local passable = next(POLICY.priorities or {}) and {}
for i, ticket in ipairs(tickets) do
  local position, wait_ms, high_ms = place_of(ticket), nil, nil
  if position then wait_ms, high_ms = estimate(position, pool) end
  positions[i] = position or 0
  waits[i] = wait_ms or -1
  highs[i] = high_ms or -1
  if passable then passable[i] = position ~= nil and may_be_passed(load_ticket(ticket)) end
end
local slots = pool.slots + coming_slots()
return reply("places", { now_ms = NOW, queue_length = waiting_count(), slots = slots,
  positions = positions, waits_ms = waits, highs_ms = highs, may_be_passed = passable or nil })
