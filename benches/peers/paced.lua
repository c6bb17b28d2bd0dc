-- wrk: as post.lua, but each connection waits two milliseconds between an answer and the next request, so that the server has
-- idle time and latencies are its own and not those of a queue before it.

dofile(debug.getinfo(1, "S").source:sub(2):match("(.*/)") .. "post.lua")

function delay()
  return 2
end
