import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import type { Ended } from '../../src/supervisor/child.ts'
import { type Ending, endLike } from '../../src/supervisor/ending.ts'

/** What this process would have done. */
function endedLike(end: Omit<Ended, 'why'>, pid: number) {
  const done: unknown[] = []
  const self: Ending = {
    pid,
    kill: (id, signal) => {
      done.push(['kill', id, signal])
      return true
    },
    removeAllListeners: (name) => {
      done.push(['removeAllListeners', name])
      return process
    },
  }
  endLike({ ...end, why: '' }, self)
  return { code: self.exitCode, done }
}

describe('the supervisor ends', () => {
  test('with the exit code of the command', () => {
    assert.deepEqual(endedLike({ code: 7 }, 4711), { code: 7, done: [] })
  })

  test('by the signal that ended the command, once nobody listens to it any more', () => {
    const done = [
      ['removeAllListeners', 'SIGTERM'],
      ['kill', 4711, 'SIGTERM'],
    ]
    assert.deepEqual(endedLike({ code: 143, signal: 'SIGTERM' }, 4711), { code: 143, done })
  })

  test('with a code where the signal says that something went wrong', () => {
    assert.deepEqual(endedLike({ code: 139, signal: 'SIGSEGV' }, 4711), { code: 139, done: [] })
  })

  test('with a code where it is the first process of a container, which its own signals do not end', () => {
    assert.deepEqual(endedLike({ code: 143, signal: 'SIGTERM' }, 1), { code: 143, done: [] })
  })
})
