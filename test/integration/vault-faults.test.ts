import assert from 'node:assert/strict'
import { createServer, type Socket } from 'node:net'
import { describe, test } from 'node:test'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { gzipSync } from 'node:zlib'
import { createSource } from '../sources/contract.ts'
import { skipReason } from '../support/components.ts'
import { answer, type Fault, startFaultProxy } from '../support/fault-proxy.ts'
import { signOnly, startVault } from '../support/vault.ts'
import { answering, failure, forever, openVault, request } from '../vault/support.ts'

const SHORT = { timeouts: { connect: '300ms', headers: '300ms', body: '300ms', total: '1m' } }

async function meeting(fault: Fault) {
  await using server = await startFaultProxy(answering(fault))
  const { vault } = openVault(server.address, SHORT)
  await using _ = vault
  return await failure(vault.sign(request, forever))
}

describe('V7 a Vault that is slow', { concurrency: true }, () => {
  test('is left when it does not answer', async () => {
    assert.equal((await meeting({ kind: 'silence' })).code, 'VAULT_TIMEOUT')
  })

  test('is left when its answer stops in the middle', async () => {
    const half: Fault = { kind: 'part', body: '{"data":', length: 100, end: 'silence' }
    assert.equal((await meeting(half)).code, 'VAULT_TIMEOUT')
  })

  test('is left when it accepts the connection but never shakes hands', async () => {
    const sockets: Socket[] = []
    const mute = createServer((socket) => sockets.push(socket.on('error', () => undefined)))
    await new Promise<void>((resolve) => mute.listen(0, '127.0.0.1', resolve))
    const place = mute.address()
    assert.ok(place !== null && typeof place === 'object')
    const { vault } = openVault(`https://127.0.0.1:${place.port}`, SHORT)
    try {
      assert.equal((await failure(vault.health(forever))).code, 'VAULT_TIMEOUT')
    } finally {
      await vault[Symbol.asyncDispose]()
      for (const socket of sockets) socket.destroy()
      mute.close()
    }
  })
})

setFlagsFromString('--expose-gc')
const collectGarbage: () => void = runInNewContext('gc')

test('V29 and V30 floods and gzip bombs do not add to the memory of the process', async () => {
  const bomb = answer(200, gzipSync(Buffer.alloc(100_000_000)), {
    'content-type': 'application/json',
    'content-encoding': 'gzip',
  })
  const faults: Fault[] = [{ kind: 'flood' }, bomb]
  await using server = await startFaultProxy(answering(() => faults[server.requests.length % 2] ?? bomb))
  const { vault } = openVault(server.address)
  await using _ = vault
  const meet = async (times: number) => {
    for (let n = 0; n < times; n += 1) assert.equal((await failure(vault.sign(request, forever))).code, 'BAD_RESPONSE')
    // What was read and is garbage by now counts for nothing.
    collectGarbage()
    return process.memoryUsage.rss()
  }
  const settled = await meet(50)
  const grown = (await meet(200)) - settled
  // Without the limit each flood alone would be endless, and each bomb 100 MB.
  assert.ok(grown < 64 * 1024 * 1024, `${Math.round(grown / 1024 / 1024)} MiB more after 200 of them`)
})

test('the same client goes on once a real Vault is no longer troubled', {
  skip: await skipReason('vault'),
}, async () => {
  await using server = await startVault()
  await server.setupPki()
  await using proxy = await startFaultProxy(undefined, { target: server.address })
  const token = await server.createToken({ policy: signOnly('pki', 'web') })
  const { vault } = openVault(proxy.address, { auth: { kind: 'token', token } })
  await using _ = vault
  const source = createSource({ kind: 'vault-pki', role: 'web', commonName: 'a.example.com' }, { vault: () => vault })
  const troubles: [Fault, string][] = [
    [{ kind: 'reset' }, 'VAULT_UNREACHABLE'],
    [answer(502, '<html>', { 'content-type': 'text/html' }), 'VAULT_5XX'],
    [{ kind: 'part', body: '{', length: 9, end: 'reset' }, 'BAD_RESPONSE'],
    [{ kind: 'flood' }, 'BAD_RESPONSE'],
  ]
  for (const [fault, code] of troubles) {
    proxy.onRequest = () => fault
    assert.equal((await failure(source.fetch(forever))).code, code)
    proxy.onRequest = () => ({ kind: 'delay', ms: 50 })
    assert.equal((await source.fetch(forever)).roots.length, 1)
  }
  const issued = (await server.audited()).filter(({ path }) => path === 'pki/sign/web')
  assert.equal(issued.length, troubles.length)
})
