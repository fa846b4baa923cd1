#!lua name=cli_bridge

-- What the nodes of a cluster do in one step on the server that they share. 'cli-bridge cluster init' loads it, and
-- nothing else does: an empty server has no functions, and so is closed. It knows leases and versions, and no caps.
-- Nodes of the version before call it, too, while one host after another gets the newer one: arguments are only added.

-- Milliseconds since the epoch, by this server's clock; and a text of its microseconds.
local function time()
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000), string.format('%s%06d', t[1], t[2])
end

local function node_of(owner)
  return string.match(owner, '^(.*)%.%d+$')
end

-- node, place (the id of its data folder), digest of the settings that change caps, lease in ms, schema, the id of the
-- cluster that it knows or ''. Gives 'empty' | 'schema' | 'other' | 'settings' | 'taken' | 'ok', owner, id of the cluster.
-- The process that had this folder is gone: only one can have it. So its life is over.
local function join(keys, args)
  local node, place, digest, lease_ms = args[1], args[2], args[3], tonumber(args[4])
  local id = redis.call('HGET', '{cb}:meta', 'id')
  if not id then return {'empty'} end
  if redis.call('HGET', '{cb}:meta', 'schema') ~= args[5] then return {'schema'} end
  if (args[6] or '') ~= '' and args[6] ~= id then return {'other'} end
  local now = time()
  local others = 0
  for _, owner in ipairs(redis.call('HKEYS', '{cb}:alive')) do
    local holds = tonumber(redis.call('HGET', '{cb}:alive', owner)) > now
    if node_of(owner) ~= node then
      if holds then others = others + 1 end
    elseif redis.call('HGET', '{cb}:places', node) == place then
      redis.call('HDEL', '{cb}:alive', owner)
    elseif holds then
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
-- Whoever was silent for longer than its lease is no longer: from now on it can write nothing in that life. Where all
-- were silent, it was the server that could not be reached, and all get another lease.
local function beat(keys, args)
  local owner, lease_ms, seq = args[1], tonumber(args[2]), args[3]
  if redis.call('HEXISTS', '{cb}:alive', owner) == 0 then return {'fenced'} end
  local now = time()
  local nobody = now - tonumber(redis.call('GET', '{cb}:beat') or '0') > lease_ms / 2
  redis.call('SET', '{cb}:beat', string.format('%d', now))
  redis.call('HSET', '{cb}:alive', owner, now + lease_ms)
  redis.call('HSET', '{cb}:at', node_of(owner), seq)
  redis.call('ZREMRANGEBYSCORE', '{cb}:assumed', 0, now - 86400000)
  local answer = {'ok'}
  local lives = redis.call('HGETALL', '{cb}:alive')
  for i = 1, #lives, 2 do
    if tonumber(lives[i + 1]) < now and not nobody then
      redis.call('HDEL', '{cb}:alive', lives[i])
    else
      if nobody then redis.call('HSET', '{cb}:alive', lives[i], now + lease_ms) end
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

-- For how long a node that came too late is the only one that may write about a subject, in milliseconds.
local TURN_MS = 50

local function turn_at(subject)
  return '{cb}:turn:' .. subject
end

-- owner, number of the last record that it has, check, run, record, how many of the subjects are compared, subjects.
-- The checks: 'new' the run is not there yet; 'open' it holds something; 'end' the same, and then no more; 'assume' the
-- same by another than its owner; 'correct' it was ended by another; 'any' none.
-- Gives 'ok' | 'gone' (with the number of the last record) | 'conflict' | 'wait' | 'fenced' | 'lost'; with 'ok' the id of
-- the record in the journal, and how often documents have changed. After 'conflict' it has its turn: until it has
-- written, or has taken too long, the others wait. So nobody comes too late again and again.
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
  local turn, late = false, false
  for i = 7, 6 + compared do
    local holder = redis.call('GET', turn_at(args[i]))
    if holder and holder ~= owner then return {'wait'} end
    turn = turn or holder
    late = late or last_of_others(owner, args[i]) > had
  end
  if late then
    for i = 7, 6 + compared do redis.call('SET', turn_at(args[i]), owner, 'PX', TURN_MS) end
    return {'conflict'}
  end
  if turn then
    for i = 7, 6 + compared do redis.call('DEL', turn_at(args[i])) end
  end
  local now, micros = time()
  local seq = string.format('%d', last + 1)
  local id = seq .. '-' .. micros
  redis.call('XADD', '{cb}:journal', id, 'r', record, 'o', owner)
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

local function ours()
  return redis.call('HEXISTS', '{cb}:meta', 'id') == 1
end

local function foreign()
  return redis.error_reply('NOCLUSTER this server holds no cluster')
end

-- Name of a document, the version that the caller knows, content. The new version; -1 where there is another one.
--   {cb}:doc:NAME  content; {cb}:versions  name -> version; {cb}:changes  counts all saves
local function save(keys, args)
  if not ours() then return foreign() end
  local name, known = args[1], tonumber(args[2])
  if tonumber(redis.call('HGET', '{cb}:versions', name) or '0') ~= known then return -1 end
  redis.call('HSET', '{cb}:versions', name, known + 1)
  redis.call('SET', '{cb}:doc:' .. name, args[3])
  redis.call('INCR', '{cb}:changes')
  return known + 1
end

--   {cb}:job:ID  a kept run; {cb}:repeat:OWNER:DIGEST  id of the job with that Idempotency-Key
--   {cb}:kept  all that ended: 'id size repeat owner', by the time of their beginning; {cb}:kept:OWNER  the same of one
--   {cb}:keptsizes  bytes of each owner, and of all (under an empty name)
local function let_go(member)
  local id, size, digest, owner = string.match(member, '^(%S+) (%d+) (%S+) (.*)$')
  if redis.call('ZREM', '{cb}:kept', member) == 0 then return end
  redis.call('ZREM', '{cb}:kept:' .. owner, member)
  redis.call('HINCRBY', '{cb}:keptsizes', '', -size)
  if redis.call('HINCRBY', '{cb}:keptsizes', owner, -size) <= 0 then redis.call('HDEL', '{cb}:keptsizes', owner) end
  redis.call('DEL', '{cb}:job:' .. id)
  if digest ~= '-' and redis.call('GET', '{cb}:repeat:' .. owner .. ':' .. digest) == id then
    redis.call('DEL', '{cb}:repeat:' .. owner .. ':' .. digest)
  end
end

-- id, owner, digest of the Idempotency-Key or '-', job, milliseconds that it is kept. Gives '' or the id of another
-- job with that Idempotency-Key; nothing is kept then.
local function job_add(keys, args)
  if not ours() then return foreign() end
  local id, owner, digest, kept_ms = args[1], args[2], args[3], args[5]
  if digest ~= '-' then
    local earlier = redis.call('GET', '{cb}:repeat:' .. owner .. ':' .. digest)
    if earlier and earlier ~= id and redis.call('EXISTS', '{cb}:job:' .. earlier) == 1 then return earlier end
    redis.call('SET', '{cb}:repeat:' .. owner .. ':' .. digest, id, 'PX', kept_ms)
  end
  redis.call('SET', '{cb}:job:' .. id, args[4], 'PX', kept_ms)
  return ''
end

-- id, owner, digest that the job came with or '-', whether that may be used again ('1'), job, milliseconds that it is
-- kept, when it began (ms); the most jobs of an owner, bytes of an owner, bytes of all. The oldest go first.
local function job_end(keys, args)
  if not ours() then return foreign() end
  local id, owner, digest, again, job, kept_ms, began = unpack(args, 1, 7)
  local most, most_bytes, most_of_all = tonumber(args[8]), tonumber(args[9]), tonumber(args[10])
  if digest ~= '-' and again == '1' then
    if redis.call('GET', '{cb}:repeat:' .. owner .. ':' .. digest) == id then
      redis.call('DEL', '{cb}:repeat:' .. owner .. ':' .. digest)
    end
    digest = '-'
  end
  redis.call('SET', '{cb}:job:' .. id, job, 'PX', kept_ms)
  local member, of_owner = table.concat({id, #job, digest, owner}, ' '), '{cb}:kept:' .. owner
  redis.call('ZADD', of_owner, began, member)
  redis.call('PEXPIRE', of_owner, 2 * kept_ms)
  -- Once, although the end is sent again where its answer was lost.
  if redis.call('ZADD', '{cb}:kept', began, member) == 1 then
    redis.call('HINCRBY', '{cb}:keptsizes', owner, #job)
    redis.call('HINCRBY', '{cb}:keptsizes', '', #job)
  end
  for _, old in ipairs(redis.call('ZRANGEBYSCORE', '{cb}:kept', 0, began - kept_ms)) do let_go(old) end
  local function size(name) return tonumber(redis.call('HGET', '{cb}:keptsizes', name) or '0') end
  while redis.call('ZCARD', of_owner) > 1 and (redis.call('ZCARD', of_owner) > most or size(owner) > most_bytes) do
    let_go(redis.call('ZRANGE', of_owner, 0, 0)[1])
  end
  while redis.call('ZCARD', '{cb}:kept') > 1 and size('') > most_of_all do
    let_go(redis.call('ZRANGE', '{cb}:kept', 0, 0)[1])
  end
  return 1
end

-- id, owner, digest or '-': a job that did not come to run.
local function job_drop(keys, args)
  local name = '{cb}:repeat:' .. args[2] .. ':' .. args[3]
  if args[3] ~= '-' and redis.call('GET', name) == args[1] then redis.call('DEL', name) end
  return redis.call('DEL', '{cb}:job:' .. args[1])
end

-- Node, what it says of itself, milliseconds for which that holds, the wishes of others that it has heard. Gives how often
-- documents have changed, the wishes of others, and what each other node says, with its name before it. A wish stays
-- until the node says that it has heard it: an answer may be lost.
--   {cb}:live  node -> ms of its last word, a line break, its words; {cb}:wishes:NODE  'stop RUN WHO', 'resume KEY'
local function look(keys, args)
  if not ours() then return foreign() end
  local node, holds_ms = args[1], tonumber(args[3])
  local now = time()
  redis.call('HSET', '{cb}:live', node, string.format('%d\n%s', now, args[2]))
  for i = 4, #args do redis.call('LREM', '{cb}:wishes:' .. node, 0, args[i]) end
  local wishes = redis.call('LRANGE', '{cb}:wishes:' .. node, 0, -1)
  local others, live = {}, redis.call('HGETALL', '{cb}:live')
  for i = 1, #live, 2 do
    local at, said = string.match(live[i + 1], '^(%d+)\n(.*)$')
    if tonumber(at) < now - holds_ms then
      redis.call('HDEL', '{cb}:live', live[i])
    elseif live[i] ~= node then
      others[#others + 1] = live[i]
      others[#others + 1] = said
    end
  end
  return {redis.call('GET', '{cb}:changes') or '0', wishes, others}
end

-- An entry of the audit, which is never cut off.
local function audit(keys, args)
  if not ours() then return foreign() end
  return redis.call('XADD', '{cb}:audit', '*', 'e', args[1])
end

-- A mark and milliseconds: whether nobody has set it for as long.
local function claim(keys, args)
  if not ours() then return foreign() end
  return redis.call('SET', '{cb}:once:' .. args[1], '1', 'NX', 'PX', args[2]) and 1 or 0
end

redis.register_function('cb_save', save)
redis.register_function('cb_job_add', job_add)
redis.register_function('cb_job_end', job_end)
redis.register_function('cb_job_drop', job_drop)
redis.register_function('cb_audit', audit)
redis.register_function('cb_look', look)
redis.register_function('cb_claim', claim)
