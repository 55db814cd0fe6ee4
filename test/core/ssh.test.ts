import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { createPublicKey, generateKeyPairSync } from 'node:crypto'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, describe, it } from 'node:test'
import { generateKey, KEY_ALGORITHMS } from '../../src/core/key.ts'
import { readSshCertificate, sshPrivateKey, sshPublicKey } from '../../src/core/ssh.ts'
import { skipReason } from '../support/components.ts'

const skip = await skipReason('ssh-keygen')
const folder = mkdtempSync(join(tmpdir(), 'certferry-ssh-'))
after(() => rmSync(folder, { recursive: true, force: true }))
const keygen = (...args: string[]) => execFileSync('ssh-keygen', args, { cwd: folder, encoding: 'utf8' })

describe('certificates of OpenSSH', { skip }, () => {
  for (const type of ['ed25519', 'ecdsa', 'rsa'])
    it(`of a key of type ${type} tell serial and life as ssh-keygen reads them`, () => {
      keygen('-q', '-t', 'ed25519', '-N', '', '-f', `ca-${type}`)
      keygen('-q', '-t', type, '-N', '', '-f', type)
      keygen(
        '-q',
        '-s',
        `ca-${type}`,
        '-I',
        'id',
        '-n',
        'a,b',
        '-z',
        '77',
        '-V',
        '20260101000000Z:20260102000000Z',
        `${type}.pub`,
      )
      const line = readFileSync(join(folder, `${type}-cert.pub`), 'utf8')
      assert.deepEqual(readSshCertificate(line), {
        serial: '77',
        notBefore: Date.UTC(2026, 0, 1),
        notAfter: Date.UTC(2026, 0, 2),
      })
    })
  it('without an end have none', () => {
    keygen('-q', '-t', 'ed25519', '-N', '', '-f', 'ca')
    keygen('-q', '-t', 'ed25519', '-N', '', '-f', 'endless')
    keygen('-q', '-s', 'ca', '-I', 'id', 'endless.pub')
    assert.equal(readSshCertificate(readFileSync(join(folder, 'endless-cert.pub'), 'utf8')).notAfter, undefined)
  })
  it('of which something is missing, or that are none, are refused', () => {
    keygen('-q', '-t', 'ed25519', '-N', '', '-f', 'cut-ca')
    keygen('-q', '-t', 'ed25519', '-N', '', '-f', 'cut')
    keygen('-q', '-s', 'cut-ca', '-I', 'id', 'cut.pub')
    const [type = '', base64 = ''] = readFileSync(join(folder, 'cut-cert.pub'), 'utf8').split(' ')
    const bytes = Buffer.from(base64, 'base64')
    // What follows the life is not read.
    for (let length = 0; length < 120; length += 1)
      assert.throws(() => readSshCertificate(`${type} ${bytes.subarray(0, length).toString('base64')}`), RangeError)
    for (const line of ['', 'ssh-ed25519 AAAA', `${type} ${Buffer.alloc(200).toString('base64')}`, 'x'.repeat(10_000)])
      assert.throws(() => readSshCertificate(line), RangeError)
  })
  it('a public key is written as ssh-keygen writes it', () => {
    const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
    const file = join(folder, 'key.pem')
    writeFileSync(file, privateKey.export({ type: 'sec1', format: 'pem' }), { mode: 0o600 })
    assert.equal(
      sshPublicKey(createPublicKey(privateKey)),
      keygen('-y', '-f', file).trim().split(' ').slice(0, 2).join(' '),
    )
  })
})

describe('a key as OpenSSH writes it', { skip, concurrency: true }, () => {
  for (const algorithm of KEY_ALGORITHMS)
    it(`${algorithm}: ssh-keygen reads the private key and prints the public one`, async () => {
      const key = await generateKey(algorithm)
      const content = sshPrivateKey(key, 'web of today')
      assert.deepEqual(sshPrivateKey(key, 'web of today'), content, 'the same key gives the same bytes')
      const file = join(folder, `private-${algorithm}`)
      writeFileSync(file, content, { mode: 0o600 })
      assert.equal(keygen('-y', '-f', file).trim(), `${sshPublicKey(createPublicKey(key))} web of today`)
    })

  it('refuses an algorithm that OpenSSH does not know', () => {
    const { privateKey } = generateKeyPairSync('ed448')
    assert.throws(() => sshPrivateKey(privateKey, ''), { code: 'KEY_FORMAT', message: /no form for an ed448 key/ })
  })
})
