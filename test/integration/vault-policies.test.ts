import assert from 'node:assert/strict'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { bundleCli } from '../../tools/build.ts'
import { createSource } from '../sources/contract.ts'
import { commandLine } from '../support/certferry.ts'
import { skipReason } from '../support/components.ts'
import { startProgram } from '../support/program.ts'
import { until } from '../support/until.ts'
import { startVault, type TestVault, WEB_ROLE } from '../support/vault.ts'
import { failure, forever, openVault } from '../vault/support.ts'

const PAGE = readFileSync(new URL('../../docs/vault-policies.md', import.meta.url), 'utf8')

type AuthKind = 'approle' | 'wrapped' | 'token'

interface Line {
  readonly text: string
  readonly path: string
  /** What the page says is lost without it; undefined where it is needed. */
  readonly loss: string | undefined
}

interface Policy {
  readonly title: string
  readonly source: object
  readonly auths: readonly AuthKind[]
  readonly withDefault: boolean
  readonly lines: readonly Line[]
}

/** `<!-- policy: METHOD [ISSUER], AUTH…[, default] -->` and the block that follows it. */
const policies = [...PAGE.matchAll(/<!-- policy: (.+) -->\n```hcl\n([^`]+)```/g)].map(
  ([, title = '', text = '']): Policy => {
    const [source = '', auths = '', withDefault] = title.split(', ')
    const [method, issuerRef] = source.split(' ')
    return {
      title,
      source: { kind: 'vault-pki', role: 'web', method, ...(issuerRef === undefined ? {} : { issuerRef }) },
      auths: auths.split(' ').filter((kind) => kind === 'approle' || kind === 'wrapped' || kind === 'token'),
      withDefault: withDefault === 'default',
      lines: text.trim().split('\n').map(parseLine),
    }
  },
)

function parseLine(text: string): Line {
  const [, path, loss] = /^path "([^"]+)" +\{ capabilities = \["\w+"\] \}(?: +# (.+))?$/.exec(text) ?? []
  assert.ok(path, `not one line of a policy: ${text}`)
  return { text, path, loss }
}

const textOf = (lines: readonly Line[]) => lines.map(({ text }) => text).join('\n')

test('the page has a policy for each method, with and without issuerRef, and for each auth kind without default', () => {
  assert.deepEqual(
    policies.map(({ title }) => title),
    [
      'sign, approle token, default',
      'issue, approle token, default',
      'sign next, approle token, default',
      'issue next, approle token, default',
      'sign, approle wrapped',
      'sign, token',
    ],
  )
  // Those of values are tried by vault-value-policies.test.ts.
  const [certificates = ''] = PAGE.split('\n## Secrets\n')
  assert.equal(certificates.match(/^path /gm)?.length, policies.flatMap(({ lines }) => lines).length)
})

const skip = await skipReason('vault')

describe('with the policies of docs/vault-policies.md', { skip }, () => {
  let server: TestVault
  let cli: string
  const folder = mkdtempSync(join(tmpdir(), 'certferry-policies-'))
  before(async () => {
    server = await startVault()
    // Vault makes no key for a role with key_type any.
    await server.setupPki({ roles: { web: { ...WEB_ROLE, key_type: 'ec', key_bits: 256 } } })
    const next = { issuer_name: 'next', common_name: 'next root', ttl: '87600h', key_type: 'ec', key_bits: 256 }
    await server.api('POST', 'pki/root/generate/internal', next)
    await bundleCli(join(folder, 'dist'))
    cli = join(folder, 'dist/cli.cjs')
  })
  after(async () => {
    await server?.[Symbol.asyncDispose]()
    rmSync(folder, { recursive: true, force: true })
  })

  let count = 0
  const save = (text: string) => {
    count += 1
    const file = join(folder, `file-${count}`)
    writeFileSync(file, text, { mode: 0o600 })
    return file
  }

  /** The `auth` of a config whose token has this policy; with `ttl` a token that has to be renewed soon. */
  async function authFor(kind: AuthKind, policy: string, withDefault: boolean, ttl?: string): Promise<object> {
    if (kind === 'token') {
      const body = { no_default_policy: !withDefault, ...(ttl === undefined ? {} : { ttl }) }
      return { kind, tokenFile: save(await server.createToken({ policy, body })) }
    }
    const role = { token_no_default_policy: !withDefault, ...(ttl === undefined ? {} : { token_ttl: ttl }) }
    const made = await server.setupApprole({ policy, role })
    const secretIdWrapped = kind === 'wrapped'
    const secretIdFile = save(secretIdWrapped ? await made.wrappedSecretId() : await made.secretId())
    return { kind: 'approle', roleId: made.roleId, secretIdFile, secretIdWrapped }
  }

  function open(auth: object, options: object) {
    const { vault, told } = openVault(server.address, { auth })
    const source = createSource({ ...options, commonName: 'a.example.com' }, { vault: () => vault })
    const close = () => vault[Symbol.asyncDispose]()
    return { told, fetch: () => source.fetch(forever), [Symbol.asyncDispose]: close }
  }

  /** Runs a command of the real program to its end. */
  async function certferry(verb: 'once' | 'doctor', auth: object, source: object) {
    count += 1
    const certificate = {
      name: 'web',
      source: { ...source, commonName: 'a.example.com' },
      outputs: [{ kind: 'pem', directory: join(folder, `tls-${count}`) }],
    }
    const config = save(JSON.stringify({ vault: { address: server.address, auth }, certificates: [certificate] }))
    const argv = [
      process.execPath,
      ...commandLine(cli, verb, '-c', config, ...(verb === 'once' ? ['--timeout', '30s'] : [])),
    ]
    const program = startProgram(argv, { PATH: process.env.PATH ?? '' })
    const code = await program.ended
    return { code, output: program.output() }
  }

  /** What the page says of an optional line, and whether it is so. */
  const LOSSES: Readonly<Record<string, (policy: Policy, kind: AuthKind, rest: string) => Promise<void>>> = {
    'doctor cannot tell policies and life of the token': (...given) =>
      doctorMisses(/\? login works; the token may not look at itself/, ...given),
    'doctor cannot tell whether the policy allows the request': (...given) =>
      doctorMisses(/\? this token may not ask what it may do/, ...given),
    'doctor cannot compare names, key and ttl with the role': (...given) =>
      doctorMisses(/\? the role web cannot be read with this token/, ...given),
    "certferry logs in again instead, at two thirds of each token's life": async (policy, kind, rest) => {
      assert.deepEqual(await Promise.all([refreshed(textOf(policy.lines)), refreshed(rest)]), ['renewed', 'login'])

      async function refreshed(text: string) {
        await using opened = open(await authFor(kind, text, policy.withDefault, '6s'), policy.source)
        const { fetch, told } = opened
        await fetch()
        const [, second] = await until('the token was refreshed', () => told.onToken.length > 1 && told.onToken)
        await fetch()
        return second?.how
      }
    },
    'the token ends with its TTL; put a new one into tokenFile before': async (policy, kind, rest) => {
      await using longLived = open(await authFor(kind, textOf(policy.lines), policy.withDefault, '6s'), policy.source)
      await longLived.fetch()
      await using opened = open(await authFor(kind, rest, policy.withDefault, '6s'), policy.source)
      const { fetch, told } = opened
      await fetch()
      const ended = await until('the token has ended', () => failure(fetch()))
      assert.equal(ended.code, 'AUTH_FAILED')
      assert.ok(told.onToken.every(({ how }) => how === 'login'))
      // The other is as old, and lives.
      assert.ok(longLived.told.onToken.some(({ how }) => how === 'renewed'))
      await longLived.fetch()
    },
  }

  /** That, and nothing else: it ends with 0, and the certificate can be had. */
  async function doctorMisses(what: RegExp, { source, withDefault }: Policy, kind: AuthKind, rest: string) {
    const { code, output } = await certferry('doctor', await authFor(kind, rest, withDefault), source)
    assert.match(output, what)
    assert.deepEqual([code, unsure(output).length], [0, 2], output)
    await using opened = open(await authFor(kind, rest, withDefault), source)
    await opened.fetch()
  }

  for (const policy of policies) {
    const { title, source, withDefault, lines } = policy
    for (const kind of policy.auths) {
      test(`"${title}" is enough for once by ${kind}, and doctor can tell everything`, async () => {
        const text = textOf(lines)
        const once = await certferry('once', await authFor(kind, text, withDefault), source)
        assert.equal(once.code, 0, once.output)
        const { code, output } = await certferry('doctor', await authFor(kind, text, withDefault), source)
        assert.match(output, /✓ login works/)
        assert.match(output, /✓ the policy allows POST pki\//)
        assert.match(output, /✓ the role web allows these names/)
        assert.deepEqual([code, unsure(output)], [0, ['no verifier: nobody will know whether the target serves it']])
      })

      for (const line of lines) {
        const rest = textOf(lines.filter((other) => other !== line))
        const { path, loss } = line
        if (loss !== undefined) {
          test(`"${title}" by ${kind} without ${path}: ${loss}`, async () => {
            const happens = LOSSES[loss]
            assert.ok(happens, `nobody tries whether this is so: ${loss}`)
            await happens(policy, kind, rest)
          })
        } else if (path === 'auth/token/lookup-self') {
          test(`V16 "${title}" by ${kind} without ${path} is a failed login`, async () => {
            await using opened = open(await authFor(kind, rest, withDefault), source)
            assert.equal((await failure(opened.fetch())).code, 'AUTH_FAILED')
          })
        } else {
          test(`V16 "${title}" by ${kind} without ${path} is denied, after one more login`, async () => {
            await using opened = open(await authFor(kind, rest, withDefault), source)
            const { code, message } = await failure(opened.fetch())
            assert.equal(code, 'PERMISSION_DENIED')
            assert.ok(message.includes(`POST ${path} (403)`), message)
            assert.deepEqual(
              opened.told.onToken.map(({ how }) => how),
              ['login', 'login'],
            )
          })
        }
      }
    }
  }

  const SIGN = 'path "pki/sign/web" { capabilities = ["update"] }'

  test('V16 pki/sign/web does not allow what issuerRef asks for', async () => {
    const source = { kind: 'vault-pki', role: 'web', issuerRef: 'next' }
    await using opened = open(await authFor('approle', SIGN, false), source)
    assert.equal((await failure(opened.fetch())).code, 'PERMISSION_DENIED')
  })

  test('V23 the chain is completed up to the root without a right to read the issuer', async () => {
    const source = { kind: 'vault-pki', role: 'web', removeRootsFromChain: true }
    await using opened = open(await authFor('approle', SIGN, false), source)
    assert.equal((await opened.fetch()).roots.length, 1)
    const asked = opened.told.onRequest.map(({ operation, status }) => `${operation} ${status}`)
    assert.deepEqual(asked, ['login 200', 'sign 200', 'ca-chain 200'])
  })

  test('V14 doctor uses up a wrapped secret_id', async () => {
    const auth = await authFor('wrapped', SIGN, true)
    const source = { kind: 'vault-pki', role: 'web' }
    assert.equal((await certferry('doctor', auth, source)).code, 0)
    await using opened = open(auth, source)
    assert.equal((await failure(opened.fetch())).code, 'WRAP_REUSED')
  })

  test('each request of doctor that Vault refuses costs one login more', async () => {
    const source = { kind: 'vault-pki', role: 'web' }
    const { length } = await server.audited()
    assert.equal((await certferry('doctor', await authFor('approle', SIGN, false), source)).code, 0)
    const later = (await server.audited()).slice(length)
    assert.equal(later.filter(({ path }) => path === 'auth/approle/login').length, 1 + 3)
  })
})

/** What doctor could not tell. */
const unsure = (output: string) => [...output.matchAll(/^ +\? (.*)$/gm)].map(([, what]) => what)
