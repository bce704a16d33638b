--[[
create - begin an empty conversation; one with that id stays as it is.

ARGV
  now_ms       int   0 = Redis TIME
  life_ms      int   since the last use
  thread       str
  facts        json  {system, metadata}
  threads_max  int   of one user
RETURNS
  created  facts, the ids that made room
  known    facts
]]
local thread, facts, threads_max = ARGV[3], ARGV[4], tonumber(ARGV[5])
local known = load_thread(thread)
if known then return reply("known", cjson.encode(known)) end
facts = new_thread(cjson.decode(facts))
local gone = make_room(threads_max)
save_thread(thread, facts)
return reply("created", cjson.encode(facts), gone)
