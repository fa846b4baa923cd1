#!lua name=cli_bridge

-- What the nodes of a cluster do in one step on the server that they share. 'cli-bridge cluster init' loads it, and
-- nothing else does: an empty server has no functions, and so is closed. It knows leases and versions, and no caps.

-- Milliseconds since the epoch, by this server's clock; and a text of its microseconds.
local function time()
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000), string.format('%s%06d', t[1], t[2])
end

local function node_of(owner)
  return string.match(owner, '^(.*)%.%d+$')
end

-- node, place (the id of its data folder), digest of the settings that change caps, lease in ms.
-- Gives 'empty' | 'settings' | 'taken' | 'ok', owner, id of the cluster.
-- The process that had this folder is gone: only one can have it. So its life is over.
local function join(keys, args)
  local node, place, digest, lease_ms = args[1], args[2], args[3], tonumber(args[4])
  local id = redis.call('HGET', '{cb}:meta', 'id')
  if not id then return {'empty'} end
  local now = time()
  local others = 0
  for _, owner in ipairs(redis.call('HKEYS', '{cb}:alive')) do
    if node_of(owner) ~= node then
      others = others + 1
    elseif redis.call('HGET', '{cb}:places', node) == place then
      redis.call('HDEL', '{cb}:alive', owner)
    elseif tonumber(redis.call('HGET', '{cb}:alive', owner)) > now then
      return {'taken'}
    end
  end
  if others == 0 then
    redis.call('HSET', '{cb}:meta', 'digest', digest)
  elseif redis.call('HGET', '{cb}:meta', 'digest') ~= digest then
    return {'settings'}
  end
  local owner = node .. '.' .. redis.call('INCR', '{cb}:epoch')
  redis.call('HSET', '{cb}:alive', owner, now + lease_ms)
  redis.call('HSET', '{cb}:places', node, place)
  return {'ok', owner, id}
end

-- owner, lease in ms, the number of the last record that it has. Gives 'fenced' | 'ok', and all owners that are alive.
-- Whoever was silent for longer than its lease is no longer: from now on it can write nothing in that life.
local function beat(keys, args)
  local owner, lease_ms, seq = args[1], tonumber(args[2]), args[3]
  if redis.call('HEXISTS', '{cb}:alive', owner) == 0 then return {'fenced'} end
  local now = time()
  redis.call('HSET', '{cb}:alive', owner, now + lease_ms)
  redis.call('HSET', '{cb}:at', node_of(owner), seq)
  redis.call('ZREMRANGEBYSCORE', '{cb}:assumed', 0, now - 86400000)
  local answer = {'ok'}
  local lives = redis.call('HGETALL', '{cb}:alive')
  for i = 1, #lives, 2 do
    if tonumber(lives[i + 1]) < now then
      redis.call('HDEL', '{cb}:alive', lives[i])
    else
      answer[#answer + 1] = lives[i]
    end
  end
  return answer
end

-- owner
local function leave(keys, args)
  return redis.call('HDEL', '{cb}:alive', args[1])
end

-- The number of the last record about a subject that another than this owner wrote.
local function last_of_others(owner, subject)
  local last = redis.call('HGET', '{cb}:last', subject)
  if not last then return 0 end
  local writer, seq, before = string.match(last, '^(%S+) (%d+) (%d+)$')
  return tonumber(writer == owner and before or seq)
end

local function note(owner, subject, seq)
  local last = redis.call('HGET', '{cb}:last', subject)
  local before = '0'
  if last then
    local writer, old, older = string.match(last, '^(%S+) (%d+) (%d+)$')
    before = writer == owner and older or old
  end
  redis.call('HSET', '{cb}:last', subject, owner .. ' ' .. seq .. ' ' .. before)
end

-- owner, number of the last record that it has, check, run, record, how many of the subjects are compared, subjects.
-- The checks: 'new' the run is not there yet; 'open' it holds something; 'end' the same, and then no more; 'assume' the
-- same by another than its owner; 'correct' it was ended by another; 'any' none.
-- Gives 'ok' | 'gone' (with the number of the last record) | 'conflict' | 'fenced' | 'lost'; with 'ok' the id of the
-- record in the journal, and how often documents have changed.
local function write(keys, args)
  local owner, had, check, run, record, compared = args[1], tonumber(args[2]), args[3], args[4], args[5], tonumber(args[6])
  local last = tonumber(redis.call('GET', '{cb}:seq') or '0')
  if had > last then return {'lost'} end
  if redis.call('HEXISTS', '{cb}:alive', owner) == 0 then return {'fenced'} end
  if check == 'new' then
    local id = redis.call('HGET', '{cb}:open', run)
    if id then return {'ok', id, redis.call('GET', '{cb}:changes') or '0'} end
  elseif check == 'correct' then
    if redis.call('ZSCORE', '{cb}:assumed', run) == false then return {'gone', tostring(last)} end
  elseif check ~= 'any' and redis.call('HEXISTS', '{cb}:open', run) == 0 then
    return {'gone', tostring(last)}
  end
  for i = 7, 6 + compared do
    if last_of_others(owner, args[i]) > had then return {'conflict'} end
  end
  local now, micros = time()
  local seq = string.format('%d', last + 1)
  local id = seq .. '-' .. micros
  redis.call('XADD', '{cb}:journal', id, 'r', record)
  redis.call('SET', '{cb}:seq', seq)
  for i = 7, #args do note(owner, args[i], seq) end
  if check == 'new' then
    redis.call('HSET', '{cb}:open', run, id)
  elseif check == 'end' or check == 'assume' then
    redis.call('HDEL', '{cb}:open', run)
    if check == 'assume' then redis.call('ZADD', '{cb}:assumed', now, run) end
  elseif check == 'correct' then
    redis.call('ZREM', '{cb}:assumed', run)
  end
  return {'ok', id, redis.call('GET', '{cb}:changes') or '0'}
end

-- id of the last record that it has, the figures, the most records that are kept for nodes that are behind.
-- The journal before it is cut off, as far as all nodes have it.
local function snapshot(keys, args)
  local seq = tonumber(string.match(args[1], '^(%d+)-'))
  local own = redis.call('HGET', '{cb}:snapshot', 'id')
  if own and tonumber(string.match(own, '^(%d+)-')) >= seq then return 0 end
  redis.call('HSET', '{cb}:snapshot', 'id', args[1], 'figures', args[2])
  local least = seq
  for _, at in ipairs(redis.call('HVALS', '{cb}:at')) do least = math.min(least, tonumber(at)) end
  least = math.max(least, seq - tonumber(args[3]))
  redis.call('XTRIM', '{cb}:journal', 'MINID', string.format('%d', least))
  return 1
end

redis.register_function('cb_join', join)
redis.register_function('cb_beat', beat)
redis.register_function('cb_leave', leave)
redis.register_function('cb_write', write)
redis.register_function('cb_snapshot', snapshot)
