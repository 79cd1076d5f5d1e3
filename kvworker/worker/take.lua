-- Takes the oldest message of the first queue that has one, and records it as unacknowledged in the same step.
-- KEYS: the queues, then the record of unacknowledged messages and its index.
-- ARGV: the size in bytes of the largest item that is recorded; the queue that each of the first keys belongs to.
-- Returns the key of the queue, the item, and the delivery tag by which it is recorded ('' if it is not).
local last = #KEYS - 2
for i = 1, last do
  local item = redis.call('LINDEX', KEYS[i], -1)
  if item then
    local tag = #item <= tonumber(ARGV[1]) and string.match(item, '"delivery_tag": ?"([^"\\]+)"') or ''
    if tag ~= '' then
      -- The record comes first: a command that the server refuses ends the script, and what was done stays done.
      local record = '[' .. item .. ',"",' .. cjson.encode(ARGV[1 + i]) .. ']'
      local now = redis.call('TIME')
      redis.call('ZADD', KEYS[last + 2], now[1] + now[2] / 1000000, tag)
      redis.call('HSET', KEYS[last + 1], tag, record)
    end
    redis.call('RPOP', KEYS[i])
    return {KEYS[i], item, tag}
  end
end
return false
