import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { createPublicKey, randomBytes } from 'node:crypto'
import { text } from 'node:stream/consumers'
import { describe, test } from 'node:test'
import { createCsr, pem, pemBytes } from '../../src/core/csr.ts'
import { describeKey, generateKey, KEY_ALGORITHMS } from '../../src/core/key.ts'
import { requestedNames } from '../../src/core/names.ts'
import { component, skipReason } from '../support/components.ts'

/** What openssl, an independent reader, makes of a request: its exit code and all it prints. */
async function openssl(request: string, ...options: string[]): Promise<string> {
  const child = spawn(await component('openssl'), ['req', '-noout', '-utf8', ...options], {
    stdio: ['pipe', 'pipe', 'pipe'],
  })
  child.stdin.end(request)
  const [out, err] = await Promise.all([text(child.stdout), text(child.stderr)])
  return out + err
}

const names = (commonName: string | undefined, ...altNames: string[]) =>
  requestedNames({ commonName, altNames, excludeCnFromSans: false })

describe('a certification request', { concurrency: true, skip: await skipReason('openssl') }, () => {
  for (const algorithm of KEY_ALGORITHMS)
    test(`of ${algorithm} is signed with its key, says openssl`, async () => {
      const key = await generateKey(algorithm)
      assert.equal(describeKey(key), algorithm)
      const request = await createCsr(names('a.example.com'), key)
      const told = await openssl(request, '-verify', '-pubkey')
      assert.match(told, /verify OK/)
      assert.ok(told.includes(createPublicKey(key).export({ type: 'spki', format: 'pem' }).toString()))
    })

  test('carries names of every kind', async () => {
    const request = await createCsr(
      names(
        'a.example.com',
        'b.example.com',
        '10.0.0.1',
        '2001:db8::1',
        '::',
        '1::',
        '::ffff:1.2.3.4',
        'spiffe://example.org/web',
        'x@example.com',
      ),
      await generateKey('ecdsa-p256'),
    )
    const told = await openssl(request, '-text')
    assert.match(told, /Subject: CN = a\.example\.com/)
    assert.match(
      told,
      /email:x@example\.com, DNS:a\.example\.com, DNS:b\.example\.com, URI:spiffe:\/\/example\.org\/web, IP Address:10\.0\.0\.1, IP Address:2001:DB8:0:0:0:0:0:1, IP Address:0:0:0:0:0:0:0:0, IP Address:1:0:0:0:0:0:0:0, IP Address:1\.2\.3\.4\n/,
    )
  })
  test('without a common name has an empty subject', async () => {
    const told = await openssl(
      await createCsr(names(undefined, 'spiffe://example.org/web'), await generateKey('ed25519')),
      '-text',
      '-verify',
    )
    assert.match(told, /Subject: *\n/)
    assert.match(told, /verify OK/)
  })
  test('without alternative names asks for no extension', async () => {
    const told = await openssl(
      await createCsr(names('Payment Sérvice'), await generateKey('ed25519')),
      '-text',
      '-verify',
      '-nameopt',
      'utf8',
    )
    assert.match(told, /Payment Sérvice/)
    assert.doesNotMatch(told, /Alternative Name/)
    assert.match(told, /verify OK/)
  })
})

test('PEM has lines of 64 characters and ends with a line break', () => {
  const lines = pem('X', Buffer.alloc(96, 1)).split('\n')
  assert.deepEqual(
    lines.map((line) => line.length),
    [17, 64, 64, 15, 0],
  )
})

test('PEM in a buffer is the same, of every length', () => {
  for (let length = 0; length < 200; length += 1) {
    const content = randomBytes(length)
    assert.equal(pemBytes('PRIVATE KEY', content).toString(), pem('PRIVATE KEY', content))
  }
})
