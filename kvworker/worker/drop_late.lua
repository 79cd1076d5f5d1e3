-- Removes messages that are too late from the end of a queue that holds its oldest messages.
-- KEYS: the queue. ARGV: the time; the most messages to look at; 1 under overload, else 0.
-- Returns the task id, the task's name and the operation id of each.
local now, most, overloaded = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3] == '1'

local function late(item)
  local ok, message = pcall(cjson.decode, item)
  if not ok or type(message) ~= 'table' or type(message.headers) ~= 'table' then return nil end
  local headers, waiting = message.headers, message.headers.kvworker
  if type(waiting) ~= 'table' or type(headers.id) ~= 'string' or type(headers.task) ~= 'string' then return nil end
  if type(waiting.deadline) ~= 'number' or type(waiting.half_time) ~= 'number' then return nil end
  local operation_id = waiting.operation_id or ''
  if type(operation_id) ~= 'string' then return nil end
  local delivery = type(message.properties) == 'table' and message.properties.delivery_info
  if type(delivery) ~= 'table' or delivery.redelivered then return nil end
  if overloaded and now >= waiting.half_time or now >= waiting.deadline and operation_id == '' then
    return {headers.id, headers.task, operation_id}
  end
end

local kept, dropped, looked, bytes = {}, {}, 0, 0
while looked < most and bytes < 1000000 do
  local item = redis.call('LINDEX', KEYS[1], -1 - looked)
  if not item then break end
  looked, bytes = looked + 1, bytes + #item
  local found = late(item)
  if found then dropped[#dropped + 1] = found else kept[#kept + 1] = item end
end
if #dropped > 0 then
  redis.call('LTRIM', KEYS[1], 0, -1 - looked)
  for i = #kept, 1, -1 do redis.call('RPUSH', KEYS[1], kept[i]) end
end
return dropped
