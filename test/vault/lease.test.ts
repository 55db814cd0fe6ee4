import assert from 'node:assert/strict'
import { test } from 'node:test'
import { answer, startFaultProxy } from '../support/fault-proxy.ts'
import { answering, failure, forever, openVault } from './support.ts'

test('a lease that has ended when it arrives is an error that waits, and may have made something', async () => {
  const ended = { lease_id: 'db/creds/app/1', lease_duration: 0, renewable: true, data: { username: 'u' } }
  await using server = await startFaultProxy(answering(answer(200, ended)))
  const { vault } = openVault(server.address)
  await using _ = vault
  const { code, mayHaveIssued } = await failure(vault.secrets.read('db/creds/app', undefined, forever))
  assert.deepEqual([code, mayHaveIssued], ['BAD_RESPONSE', true])
})
