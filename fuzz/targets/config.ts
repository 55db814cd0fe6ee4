import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { loadConfig } from '../../src/config/config.ts'
import { ConfigError } from '../../src/config/problems.ts'
import { type Mutator, pick, replaced } from '../mutate.ts'
import { attempt, CANARY, type OpenTarget } from '../target.ts'

/** Config text: every problem is told at its place, without a secret; or the config is frozen, and the same when read again. */
export const openConfig: OpenTarget = async () => {
  const folder = mkdtempSync(join(tmpdir(), 'certferry-fuzz-'))
  const secretFile = join(folder, 'secret')
  writeFileSync(secretFile, `${CANARY}\n`, { mode: 0o600 })
  const file = join(folder, 'certferry.yaml')
  const env = { HOST: 'a.example', SECRET: CANARY, EMPTY: '' }

  const load = () => {
    try {
      return loadConfig(file, env)
    } catch (error) {
      if (error instanceof ConfigError)
        assert.ok(error.problems.length > 0 && error.problems.every(({ place }) => place.startsWith(file)))
      throw error
    }
  }

  return {
    seeds: SEEDS.map((text) => Buffer.from(text)),
    dictionary: DICTIONARY,
    structured: changeScalar,
    run: async (input) => {
      const text = Buffer.from(input.toString('latin1').replaceAll(SECRET_FILE, secretFile), 'latin1')
      writeFileSync(file, text, { mode: 0o600 })
      const config = attempt(load, { lines: true })
      if (!config) return
      assert.ok(isFrozen(config), 'the config can be changed')
      assert.deepEqual(load(), config)
    },
    [Symbol.asyncDispose]: async () => rmSync(folder, { recursive: true }),
  }
}

/** Stands for a file with a secret, in inputs that are kept. */
const SECRET_FILE = '/SECRET-FILE'

const isFrozen = (value: unknown): boolean =>
  typeof value !== 'object' ||
  value === null ||
  (Object.isFrozen(value) && (Object.getPrototypeOf(value) === null || Object.values(value).every(isFrozen)))

/** Another value in place of what stands after a key or in a list. */
const changeScalar: Mutator = (input, { random, dictionary }) => {
  const scalars = [...input.toString('latin1').matchAll(/(?<=[:[{,-] )[^\s,[\]{}]+/g)]
  if (scalars.length === 0) return input
  const { index, 0: scalar } = pick(scalars, random)
  return replaced(input, index, scalar.length, pick(dictionary, random))
}

const SEEDS = [
  `vault:
  address: https://vault.example.com:8200
  caFile: /etc/vault/ca.pem
  clientCertFile: /c.pem
  clientKeyFile: /k.pem
  redirectHosts: [b.example:8200]
  timeouts: { total: 20s }
  auth: { kind: approle, roleIdFile: /run/role-id, secretIdFile: /run/secret-id, secretIdWrapped: true }
admin: { listen: '0.0.0.0:9443', socket: /run/control.sock, tls: { certFile: /c.pem, keyFile: /k.pem } }
log: { level: debug, format: json }
audit: { file: /var/audit.log }
volumes: [/tls]
certificates:
  - name: web
    source: { kind: vault-pki, mount: pki/a, role: web, commonName: '\${HOST}', altNames: [www.example.com, 10.0.0.1], ttl: 72h }
    key: { algorithm: rsa-3072 }
    renew: { after: 2/3, cron: '0 3 * * 1-5', timezone: Europe/Berlin, jitter: 0.2 }
    check: { minTtl: 1m, chain: lenient, trustFile: /roots.pem }
    outputs: [{ kind: pem, directory: /tls/a, mode: '0640', layout: nginx-include }, { kind: combined, directory: /tls/b }]
    reload: [{ kind: signal, pidFile: /run/nginx.pid, signal: SIGHUP, test: [nginx, -t] }]
    verify: [{ kind: tls, address: '127.0.0.1:443', serverName: web.example.com }]
`,
  `vault: { address: 'http://127.0.0.1:8200', auth: { kind: token, token: '\${SECRET}' } }
certificates:
  - name: a
    source: &s { kind: vault-pki, role: a, commonName: a.example, method: issue }
    renew: { before: 1h }
    outputs: [{ kind: combined, directory: /a, uid: 0, gid: 0, layout: flat }]
    reload: [{ kind: exec, command: [reload, '\${SECRET:-x}'], timeout: 5s }]
  - name: b
    source: *s
    outputs: [{ kind: pem, directory: /b }]
    reload: [{ kind: http, url: 'http://127.0.0.1/reload', headers: { authorization: '\${file:/SECRET-FILE}' } }]
`,
  '{"certificates":[{"name":"web","source":{"kind":"dev-ca","directory":"/ca","commonName":"a.example"},"outputs":[{"kind":"pem","directory":"/tls"}],"startupGrace":"1m"}]}',
]

const DICTIONARY = [
  ...'vault address auth admin listen socket log level audit file volumes certificates name source kind mount role'.split(
    ' ',
  ),
  ...'commonName altNames ttl key algorithm renew after before cron timezone jitter check minTtl chain trustFile'.split(
    ' ',
  ),
  ...'outputs directory mode layout uid gid reload verify headers command token dev-ca pem combined exec http tls'.split(
    ' ',
  ),
  ...['${HOST}', '${SECRET}', '${EMPTY}', '${EMPTY:-x}', '${file:/SECRET-FILE}', '${file:/nowhere}', '${', '$${', '}'],
  ...[
    ': ',
    '- ',
    '? ',
    '&a ',
    '*a',
    '!!str ',
    '!x ',
    '<<: ',
    '---\n',
    '...\n',
    '|\n',
    '>-\n',
    '# ',
    '\t',
    '\n  ',
    '[',
    ']',
  ],
  ...[
    '{',
    ', ',
    "'",
    '"',
    '~',
    'null',
    'true',
    '.nan',
    '.inf',
    '0x1',
    '0o17',
    '0600',
    '2026-01-01',
    '__proto__',
    'toString',
  ],
  ...['24h', '1ms', '2/3', '66%', '1e400', '/', '/..', 'SIGKILL', 'https://[::1]:1', '*.example', '::1', '* * * * * *'],
  ...['0 0 31 2 *', 'L', 'Europe/Berlin', 'UTC', '\u{feff}', '\u0085', '\u2028', '\u0000', '\u001b[31m', 'ü'],
]
