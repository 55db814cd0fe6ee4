import { createPrivateKey } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Subject } from './subject.ts'

/** What looks like a secret, whether or not it is one of ours. */
const PATTERNS = [
  ['a token of Vault', /\bhv[sbr]\.[\w-]{20,}/],
  ['a private key', /-----BEGIN [A-Z ]*PRIVATE KEY/],
] as const

/** Looks for secrets in what was written to these files since the last time. */
export function createSearch({ outputFile, stage, proxy, keys }: Subject): () => string[] {
  const files = [outputFile, join(stage.folder, 'audit.log')].map((path) => ({ path, from: 0 }))
  const news = () =>
    files.map((file) => {
      const text = readFileSync(file.path).subarray(file.from)
      file.from += text.length
      return text.toString('utf8')
    })
  return () => secretsIn(news().join('\n'), { stage, proxy, keys })
}

/** Kinds of secrets in what the processes of a sidecar printed, answered or logged. */
function secretsIn(text: string, { stage, proxy, keys }: Pick<Subject, 'stage' | 'proxy' | 'keys'>): string[] {
  const tokens = new Set(proxy.requests.map(({ headers }) => String(headers['x-vault-token'] ?? '')))
  const canaries = [
    ...[...tokens].map((token) => ['a token it used', token] as const),
    ['the secret_id', readFileSync(join(stage.folder, 'secret-id'), 'utf8').trim()] as const,
    ...[...keys].flatMap(partsOf).map((part) => ['a piece of a key', part] as const),
  ]
  return [
    ...PATTERNS.filter(([, pattern]) => pattern.test(text)),
    ...canaries.filter(([, canary]) => canary !== '' && text.includes(canary)),
  ].map(([what]) => what)
}

/** The lines of the PEM file, and the private number in the ways it could be written. */
function partsOf(pem: string): string[] {
  const lines = pem.split('\n').filter((line) => line.length > 40 && !line.startsWith('-'))
  try {
    const { d = '' } = createPrivateKey(pem).export({ format: 'jwk' })
    const bytes = Buffer.from(d, 'base64url')
    return [...lines, d, bytes.toString('hex'), bytes.toString('base64')].filter((part) => part.length > 20)
  } catch {
    return lines
  }
}
