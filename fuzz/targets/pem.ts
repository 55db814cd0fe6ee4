import assert from 'node:assert/strict'
import { X509Certificate } from 'node:crypto'
import {
  assertUsable,
  certificatePem,
  configMismatch,
  keyPem,
  parseCertificates,
  toBundle,
} from '../../src/core/bundle.ts'
import { differences, namesOf, requestedNames } from '../../src/core/names.ts'
import { below, type Mutator, pick, type Random, replaced } from '../mutate.ts'
import { attempt, type OpenTarget } from '../target.ts'

/** The certificates of the corpus are valid then, and for years. */
const NOW = Date.UTC(2027, 0, 1)
const NAMES = requestedNames({ commonName: 'web.test', altNames: ['127.0.0.1'], excludeCnFromSans: false })

/** PEM or DER, as certificate, chain and key in one: refused in order, or a bundle of which nothing but its own encoding is passed on. */
export const openPem: OpenTarget = async () => ({
  seeds: [],
  dictionary: DICTIONARY,
  structured: changeDer,
  run: async (input) => {
    const isDer = input[0] === 0x30
    const text = isDer ? wrapped('CERTIFICATE', input) : input.toString('latin1')
    for (const one of attempt(() => parseCertificates(text)) ?? []) {
      assertClean(one)
      assertFit(differences(NAMES, namesOf(one)).join())
    }
    const parts = { certificate: text, issuers: [text], key: text, origin: 'fuzz', receivedAt: NOW }
    const bundle = attempt(() => toBundle(parts))
    if (!bundle) return
    assert.match(keyPem(bundle.key).toString(), CLEAN)
    for (const expect of EXPECTATIONS) attempt(() => assertUsable(bundle, expect, NOW))
    assertFit(configMismatch(bundle, { names: NAMES, algorithm: 'ecdsa-p256' })?.message ?? '')
  },
  [Symbol.asyncDispose]: async () => {},
})

const EXPECTATIONS = [
  { minTtlMs: 1, chain: 'complete', names: NAMES, algorithm: 'ecdsa-p256', serverAuth: true },
  { minTtlMs: 1, chain: 'complete' },
  { minTtlMs: 1, chain: 'lenient', serverAuth: true },
] as const

const CLEAN = /^-----BEGIN ([A-Z ]+)-----\n(?:[A-Za-z0-9+/]{64}\n)*[A-Za-z0-9+/]{1,64}={0,2}\n-----END \1-----\n$/

function assertClean(certificate: X509Certificate): void {
  const text = certificatePem(certificate)
  assert.match(text, CLEAN)
  assert.deepEqual(new X509Certificate(text).raw, Buffer.from(certificate.raw))
}

/** What is told of a certificate on disk is told to people too. */
const assertFit = (told: string) => assert.doesNotMatch(told, /\p{Cc}/u, 'a message holds a control character')

const wrapped = (label: string, der: Buffer) =>
  `-----BEGIN ${label}-----\n${der.toString('base64').replace(/.{1,64}/g, '$&\n')}-----END ${label}-----\n`

/** A change inside the DER of one block, which is encoded again; of raw DER, in place. */
const changeDer: Mutator = (input, { random, dictionary }) => {
  if (input[0] === 0x30) return changeNode(input, random, dictionary)
  const blocks = [...input.toString('latin1').matchAll(/-----BEGIN ([A-Z ]+)-----([^-]*)-----END \1-----\n?/g)]
  if (blocks.length === 0) return input
  const { index, 0: whole, 1: label = '', 2: content = '' } = pick(blocks, random)
  const der = changeNode(Buffer.from(content, 'base64'), random, dictionary)
  return random() < 0.05 ? der : replaced(input, index, whole.length, wrapped(label, der))
}

function changeNode(der: Buffer, random: Random, dictionary: readonly string[]): Buffer {
  const nodes = nodesOf(der, 0, der.length)
  if (nodes.length === 0) return der
  const { start, content, end } = pick(nodes, random)
  const copy = Buffer.from(der)
  switch (below(5, random)) {
    case 0:
      copy[start] = below(256, random)
      return copy
    case 1:
      copy[start + 1] = below(256, random)
      return copy
    case 2:
      // Text of the same length, so that all around it still fits.
      copy.write(
        pick(dictionary, random)
          .padEnd(end - content, 'x')
          .slice(0, end - content),
        content,
        'latin1',
      )
      return copy
    case 3:
      for (let at = content; at < end; at++) copy[at] = below(256, random)
      return copy
    default:
      return replaced(der, start, end - start, random() < 0.5 ? '' : der.subarray(content, end))
  }
}

interface Node {
  readonly start: number
  readonly content: number
  readonly end: number
}

/** Every tag-length-value of DER (X.690 §8.1) that can be told apart, those inside octet strings included. */
function nodesOf(der: Buffer, from: number, to: number): Node[] {
  const nodes: Node[] = []
  for (let start = from; start + 2 <= to; ) {
    const first = der[start + 1] ?? 0
    const more = first > 0x80 ? first - 0x80 : 0
    if (more > 3 || start + 2 + more > to) break
    const content = start + 2 + more
    const end = content + (more === 0 ? first : der.readUIntBE(start + 2, more))
    if (end > to) break
    const tag = der[start] ?? 0
    nodes.push({ start, content, end })
    if (tag & 0x20 || tag === 0x04) nodes.push(...nodesOf(der, content, end))
    start = end
  }
  return nodes
}

const DICTIONARY = [
  '-----BEGIN CERTIFICATE-----\n',
  '-----END CERTIFICATE-----\n',
  '-----BEGIN PRIVATE KEY-----\n',
  '-----BEGIN RSA PRIVATE KEY-----\n',
  '-----BEGIN ENCRYPTED PRIVATE KEY-----\n',
  '-----BEGIN TRUSTED CERTIFICATE-----\n',
  'Proc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\n',
  'Bag Attributes\n',
  '# comment\n',
  '\r\n',
  '\n\n',
  '\0',
  ' ',
  '=',
  '\u001b[31m',
  ', DNS:evil.test',
  '"quoted\\u000a"',
  '*.test',
  'xn--',
  '\n',
  '20260101000000Z',
  '991231235959Z',
  '99991231235959Z',
]
