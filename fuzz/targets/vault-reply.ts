import assert from 'node:assert/strict'
import { once } from 'node:events'
import { createServer } from 'node:net'
import type { z } from 'zod'
import { Secret } from '../../src/core/secret.ts'
import { VaultOptions } from '../../src/vault/options.ts'
import { IssuedReply, IssuerReply, PkiRole } from '../../src/vault/pki.ts'
import { type Answer, isSuccess, parseReply, refusal } from '../../src/vault/replies.ts'
import { Capabilities, Health, Lookup } from '../../src/vault/sys.ts'
import { createTransport } from '../../src/vault/transport.ts'
import { below, type Mutator, pick, type Random } from '../mutate.ts'
import { assertRefusal, attempt, CANARY, type OpenTarget } from '../target.ts'

const ECHOED = 'told-in-confidence'
const SECRETS = [new Secret(ECHOED)]
const REQUEST = 'POST pki/sign/web'
const SCHEMAS: readonly z.ZodType[] = [IssuedReply, IssuerReply, PkiRole, Health, Lookup, Capabilities]

/** The bytes of an answer, sent by a server to the real transport: an error of the table, or a reply that parses or is refused in order. */
export const openVaultReply: OpenTarget = async () => {
  let bytes: Buffer = Buffer.alloc(0)
  const server = createServer((socket) => {
    socket.on('error', () => {})
    socket.once('data', () => socket.end(bytes))
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  const url = `http://127.0.0.1:${typeof address === 'object' ? address?.port : ''}`
  const transport = createTransport(
    VaultOptions.parse({ address: url, auth: { kind: 'token', token: CANARY }, timeouts: { total: '2s' } }),
  )
  const signal = new AbortController().signal
  const headers = { 'x-vault-token': CANARY }
  const ask = () =>
    transport
      .request({ method: 'POST', url: `${url}/v1/pki/sign/web`, headers, json: {}, secrets: SECRETS, signal })
      .catch((error: unknown) => {
        assertDiscreet(error)
        return undefined
      })

  return {
    seeds: SEEDS.map((text) => Buffer.from(text)),
    dictionary: DICTIONARY,
    structured: changeJson,
    run: async (input) => {
      bytes = input
      const reply = await ask()
      if (reply) judge({ ...reply, secrets: SECRETS })
    },
    [Symbol.asyncDispose]: async () => {
      await transport.close()
      server.close()
    },
  }
}

function judge(reply: Answer): void {
  assertDiscreet(refusal(reply, REQUEST, Date.UTC(2026, 0, 1)))
  if (isSuccess(reply)) for (const schema of SCHEMAS) attempt(() => parseReply(reply, schema, REQUEST))
}

/** Vault may echo what it was told. */
function assertDiscreet(error: unknown): void {
  assertRefusal(error)
  assert.ok(!error.message.includes(ECHOED), 'a message repeats a secret that was told to Vault')
}

/** Another value for some key of the JSON in the body, or one key less. */
const changeJson: Mutator = (input, { random, dictionary }) => {
  const text = input.toString('latin1')
  const at = text.indexOf('\r\n\r\n') + 4
  const body = parse(text.slice(at))
  if (at < 4 || body === undefined) return input
  return Buffer.from(text.slice(0, at) + JSON.stringify(changed(body, random, dictionary)), 'latin1')
}

function changed(value: unknown, random: Random, dictionary: readonly string[]): unknown {
  const isDeep = typeof value === 'object' && value !== null && Object.keys(value).length > 0
  if (!isDeep || random() < 0.2) return pick<unknown>([...VALUES, pick(dictionary, random)], random)
  const entries: [string, unknown][] = Object.entries(value)
  const chosen = below(entries.length, random)
  const next = entries.flatMap(([key, child], index): [string, unknown][] => {
    if (index !== chosen) return [[key, child]]
    return random() < 0.1 ? [] : [[key, changed(child, random, dictionary)]]
  })
  return Array.isArray(value) ? next.map(([, child]) => child) : Object.fromEntries(next)
}

const VALUES = [null, true, 0, -1, 1e300, '', 'x'.repeat(5000), [], {}, [[]], { errors: ['x'] }, CANARY]

function parse(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

const answer = (status: string, body: unknown, ...headers: string[]) =>
  [`HTTP/1.1 ${status}`, 'content-type: application/json', ...headers, '', JSON.stringify(body)].join('\r\n')

const PEM = '-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----'
const SEEDS = [
  answer('200 OK', {
    data: { certificate: PEM, issuing_ca: PEM, ca_chain: [PEM], private_key: CANARY, serial_number: '0a' },
    warnings: ['TTL was capped'],
  }),
  answer('200 OK', { data: { allow_any_name: true, allowed_domains: ['a'], key_bits: 0, max_ttl: 3600, ttl: 0 } }),
  answer('200 OK', { data: { display_name: 'x', policies: ['a'], ttl: 60, expire_time: 'x', renewable: true } }),
  answer('200 OK', { initialized: true, sealed: false, standby: false, version: '1.21.0' }),
  answer('200 OK', { data: { capabilities: ['update'] } }),
  answer('400 Bad Request', { errors: [`1 error occurred:\n\t* unknown role: ${ECHOED}\n\n`] }),
  answer('403 Forbidden', { errors: [`permission denied for ${CANARY}`] }),
  answer('404 Not Found', { data: null, warnings: ['Invalid path'] }),
  answer('405 x', { errors: [] }),
  answer('412 x', { errors: [] }),
  answer('429 Too Many Requests', { errors: ['quota'] }, 'retry-after: 5'),
  answer('500 x', { errors: ['no default issuer currently configured'] }),
  answer('503 x', { errors: ['Vault is sealed'] }, 'date: Thu, 01 Jan 2026 00:00:00 GMT'),
  answer('307 Temporary Redirect', {}, 'location: https://127.0.0.1:1/v1/x'),
  'HTTP/1.1 502 Bad Gateway\r\ncontent-type: text/html\r\n\r\n<html>\u001b[31m</html>',
  'HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n',
]

const DICTIONARY = [
  ...[
    'HTTP/1.1 ',
    'HTTP/1.0 ',
    '200',
    '204',
    '304',
    '301',
    '307',
    '308',
    '400',
    '403',
    '404',
    '429',
    '472',
    '503',
    '999',
  ],
  ...['\r\n', '\r\n\r\n', 'content-length: 5\r\n', 'transfer-encoding: chunked\r\n', 'content-encoding: gzip\r\n'],
  ...['location: ', 'location: http://evil.test/\r\n', 'location: //\r\n', 'retry-after: ', 'date: ', 'Infinity'],
  ...['"errors"', '"data"', '"warnings"', '"certificate"', '"private_key"', '"ca_chain"', '"ttl"', '"__proto__"'],
  ...[
    'null',
    '[]',
    '{}',
    '""',
    '\\u0000',
    '\\ud800',
    '\u001b[31m',
    '\n',
    'unknown role',
    'beyond the expiration of the CA',
  ],
  CANARY,
  ECHOED,
  '-----BEGIN PRIVATE KEY-----',
]
