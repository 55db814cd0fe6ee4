import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { describe, test } from 'node:test'
import { parse } from 'yaml'
import * as z from 'zod'
import { load } from './config/support.ts'

const PAGES = [
  'README.md',
  'docs/secrets.md',
  'docs/exec.md',
  'docs/vault.md',
  'docs/migrate.md',
  'docs/client.md',
  'docs/spiffe.md',
  'docs/outputs.md',
  'docs/acme.md',
  'docs/trust.md',
]

const Mapping = z.record(z.string(), z.unknown())

const SECRET = { name: 'app', values: { db: { kind: 'vault-kv', path: 'team/app' } } }
const VAULT = { address: 'https://vault.example.com:8200', auth: { kind: 'token', tokenFile: '/run/token' } }

for (const page of PAGES) {
  describe(`${page} shows configs that are valid`, () => {
    const text = readFileSync(new URL(`../${page}`, import.meta.url), 'utf8')
    const blocks = [...text.matchAll(/```yaml\n([\s\S]*?)```/g)]
    assert.ok(blocks.length > 0, `${page} has no config`)
    for (const { 1: block = '', index } of blocks) {
      const part = Mapping.parse(parse(block))
      // Manifests of Kubernetes have tests of their own.
      if ('kind' in part || 'containers' in part) continue
      test(`line ${text.slice(0, index).split('\n').length}`, () => void load(JSON.stringify(completed(part))))
    }
  })
}

/** Kinds of outputs that a secret has not. */
const ofCertificate = z.array(z.object({ kind: z.enum(['pem', 'combined', 'pkcs12', 'der', 'ssh']) }))
const SOURCE = { kind: 'vault-pki', role: 'web', commonName: 'web.example.com' }

/** A config around a part of one: of a certificate, of a secret, or of its top level. */
function completed(part: Record<string, unknown>): object {
  if (ofCertificate.safeParse(part.outputs).success)
    return { vault: VAULT, certificates: [{ name: 'web', source: SOURCE, ...part }] }
  if ('values' in part || 'outputs' in part) return { vault: VAULT, secrets: [{ ...SECRET, ...part }] }
  const isWhole = 'secrets' in part || 'certificates' in part
  return { vault: VAULT, ...(isWhole ? {} : { secrets: [SECRET] }), ...part }
}
