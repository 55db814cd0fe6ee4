import assert from 'node:assert/strict'
import { test } from 'node:test'
import { skipReason } from '../support/components.ts'
import { nginxConsumer } from '../support/consumer-nginx.ts'
import { assertConsumer, runConsumer } from '../support/consumer-rig.ts'

const skip = await skipReason('nginx')

test('nginx takes three certificates while clients connect: no handshake fails, no pair is mixed', { skip }, (t) =>
  assertConsumer(t, nginxConsumer('nginx-include'), { rotations: 3 }),
)

test('the rig counts the handshakes that fail, and the rotation that is not proven, where the server has gone', {
  skip,
}, async () => {
  const gone = nginxConsumer('generation', {
    between: async (done, _place, { pid = 0 }) => {
      if (done === 0) process.kill(pid, 'SIGQUIT')
    },
  })
  const { failed, served, mismatched, complaints } = await runConsumer(gone, { rotations: 1 })
  assert.ok(failed > 0)
  assert.deepEqual([served, mismatched > 0], [0, true])
  assert.match(complaints.join('\n'), /a handshake failed: .*ECONNREFUSED/)
})
