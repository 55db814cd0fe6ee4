import assert from 'node:assert/strict'
import { test } from 'node:test'
import { stripVTControlCharacters } from 'node:util'
import { SidecarStatus, statusJson } from '../../src/observe/status.ts'
import { renderStatus } from '../../src/observe/status-table.ts'
import { active, leased, NOW, pending, sidecar, trusting } from './samples.ts'

const troubled = active('api', {
  phase: 'DEGRADED',
  reason: 'reload_not_effective',
  lastError: {
    code: 'RELOAD_NOT_EFFECTIVE',
    message: '127.0.0.1:443 still serves certificate 3f00aa after SIGHUP to nginx (pid file /run/nginx.pid)',
    hint: "The target still serves the old certificate after the reload; look into the target's error log.",
    stage: 'verify',
    at: NOW - 90_000,
  },
  renewAt: NOW - 1,
  nextAt: NOW + 12_000,
  failures: 2,
  servedEqualsDisk: false,
})
const expired = active('old', {
  phase: 'EXPIRED',
  notAfter: NOW - 1000,
  served: { up: false, notAfter: null, serial: null, fingerprint: null, at: NOW },
  servedEqualsDisk: null,
})
const unverified = active('files', { verified: 'none', served: null, servedEqualsDisk: null })
const all = sidecar([active('web'), troubled, pending('mail'), expired, unverified])

test('a snapshot goes to JSON with ISO times and comes back the same', () => {
  const json = JSON.stringify(statusJson(all))
  assert.match(json, /"renewAt":"2026-01-03T03:04:05\.000Z"/)
  assert.deepEqual(SidecarStatus.parse(JSON.parse(json)), all)
})

test('a client understands a newer sidecar that tells more', () => {
  const json: object = JSON.parse(JSON.stringify(statusJson(sidecar([]))))
  assert.deepEqual(SidecarStatus.parse({ ...json, moonPhase: 'full' }), sidecar([]))
})

test('secrets have a table of their own, beneath that of the certificates', () => {
  const trouble = {
    code: 'SECRET_DELETED',
    message: 'version 3 was deleted',
    hint: 'Undelete it.',
    stage: 'fetch',
    at: NOW,
  }
  const status = sidecar([active('web')], {
    secrets: [
      leased('app'),
      leased('mail', { phase: 'DEGRADED', expiresAt: null, reason: 'secret_deleted', lastError: trouble }),
    ],
  })
  assert.equal(
    renderStatus(status, { now: NOW, colour: false, width: 80 }).split('\n\n').at(-1),
    `SECRET  PHASE     EXPIRES IN  LOOK IN  DELIVERED  VALUES
app     ACTIVE    1h          5m       2h ago     api v3, db
mail    DEGRADED  –           5m       2h ago     api v3, db
    secret_deleted: version 3 was deleted (fetch, 0ms ago, next try in 5m)
    Undelete it.
`,
  )
})

test('trusts have a table of their own: what is in it, whether it is in force, and what is wrong', () => {
  const trouble = {
    code: 'CRL_UNREACHABLE',
    message: 'http://crl.example.com/ca.crl answers 503',
    hint: 'Check the address in trust.crls.',
    stage: 'fetch',
    at: NOW - 60_000,
  }
  const status = sidecar([active('web')], {
    trust: [
      trusting('peers'),
      trusting('partners', {
        phase: 'EXPIRED',
        notAfter: NOW - 1000,
        nextAt: NOW + 30_000,
        anchors: trusting('').anchors.slice(0, 1),
        reason: 'crl_unreachable',
        lastError: trouble,
        failures: 4,
        verified: 'failed',
      }),
      trusting('files', { crls: [], verified: 'none', nextAt: NOW - 1, notAfter: NOW + 5000 * 3_600_000 }),
      trusting('next', {
        phase: 'PENDING',
        anchors: [],
        crls: [],
        verified: 'pending',
        notAfter: null,
        nextAt: null,
        publishedAt: null,
      }),
    ],
  })
  const [head, , table] = renderStatus(status, { now: NOW, colour: false, width: 90 }).split('\n\n')
  assert.match(head ?? '', /3 active, 1 expired, 1 pending/)
  assert.equal(
    table,
    `TRUST     PHASE    ENDS IN  LOOK IN  PUBLISHED  IN FORCE  CONTENT
peers     ACTIVE   3d       5m       2h ago     verified  2 CAs, 1 retiring, 1 CRL
partners  EXPIRED  ended    30s      2h ago     failed    1 CA, 1 CRL
    crl_unreachable: http://crl.example.com/ca.crl answers 503 (fetch, 1m ago, 4 failures,
    next try in 30s)
    Check the address in trust.crls.
files     ACTIVE   208d 8h  due      2h ago     –         2 CAs, 1 retiring
next      PENDING  –        –        –          pending   0 CAs
`,
  )
  assert.deepEqual(SidecarStatus.parse(JSON.parse(JSON.stringify(statusJson(status)))), status)
})

test('status names the origin of what came from a fallback', () => {
  const status = sidecar([active('web', { origin: 'dev-ca /ca', fallback: true })])
  assert.match(
    renderStatus(status, { now: NOW, colour: false, width: 80 }),
    /^web .*\n {4}from a fallback: dev-ca \/ca$/m,
  )
})

test('status is a table, with the reason and the hint beneath a certificate in trouble', () => {
  assert.equal(
    renderStatus(all, { now: NOW, colour: false, width: 80 }),
    `certferry 0.1.0 · up 1d 2h · 2 active, 1 degraded, 1 pending, 1 expired
Vault https://vault.example.com:8200 (token for 45m)

NAME   PHASE     SERIAL     EXPIRES IN  RENEWS IN  ROTATED  SERVED
web    ACTIVE    3fa2…9c01  2d          1d         1d ago   ✓
api    DEGRADED  3fa2…9c01  2d          due        1d ago   ✗ another
    reload_not_effective: 127.0.0.1:443 still serves certificate 3f00aa after
    SIGHUP to nginx (pid file /run/nginx.pid) (verify, 1m 30s ago, 2 failures,
    next try in 12s)
    The target still serves the old certificate after the reload; look into the
    target's error log.
mail   PENDING   –          –           –          –        … pending
    vault_unreachable: cannot connect to https://vault.example.com:8200
    (ECONNREFUSED) (fetch, 4s ago, 3 failures, next try in 8s)
    Check vault.address, the network path and that Vault is running.
old    EXPIRED   3fa2…9c01  expired     1d         1d ago   ✗ down
files  ACTIVE    3fa2…9c01  2d          1d         1d ago   –
`,
  )
})

test('colours change nothing but the colours', () => {
  const options = { now: NOW, width: 100 }
  const coloured = renderStatus(all, { ...options, colour: true })
  assert.notEqual(coloured, stripVTControlCharacters(coloured))
  assert.equal(stripVTControlCharacters(coloured), renderStatus(all, { ...options, colour: false }))
})

test('a long name is cut where the terminal is narrow, and whole where it is wide', () => {
  const name = 'a-certificate-with-quite-a-long-name.example.com'
  const long = sidecar([
    active(name, { lastRotationAt: NOW - 86_340_000, notAfter: NOW + 86_340_000, renewAt: NOW + 80_000_000 }),
    pending('mail'),
  ])
  const narrow = renderStatus(long, { now: NOW, colour: false, width: 80 })
  for (const line of narrow.split('\n')) assert.ok(line.length <= 80, `${line.length}: ${line}`)
  assert.match(narrow, /^a-certificat\S*… /m)
  assert.match(renderStatus(long, { now: NOW, colour: false, width: 120 }), new RegExp(`^${name} `, 'm'))
})

test('a rejected config is told above the table', () => {
  const config = {
    file: '/etc/certferry.yaml',
    loadedAt: NOW - 60_000,
    lastReloadOk: false,
    error: 'vault.address: Invalid URL',
  }
  assert.match(
    renderStatus(sidecar([], { config, vault: null }), { now: NOW, colour: false, width: 200 }),
    /no certificates\nconfig \/etc\/certferry\.yaml was rejected, the one loaded 1m ago stays: vault\.address: Invalid URL\n/,
  )
})

test('a message from outside cannot move the cursor', () => {
  const error = { code: 'BUG', message: 'a\u001b[2J', hint: 'h\r', stage: 'fetch', at: NOW }
  const text = renderStatus(sidecar([active('web', { lastError: error })]), { now: NOW, colour: false, width: 80 })
  assert.doesNotMatch(text, /(?!\n)\p{Cc}/u)
})
