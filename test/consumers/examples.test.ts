import assert from 'node:assert/strict'
import { symlink } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { component, skipReason } from '../support/components.ts'
import { assertNothingLeft, assertRotated, outputOf, runScript, temporaryFolders } from '../support/example-run.ts'

const createFolder = await temporaryFolders()

const nginxOpenssl = async () => ({ NGINX: await component('nginx'), OPENSSL: await component('openssl') })
const vaultNginxOpenssl = async () => ({ ...(await nginxOpenssl()), VAULT_BIN: await component('vault') })

/** The programs that each example runs, by the variables that name them. */
const EXAMPLES = {
  haproxy: { skip: await skipReason('haproxy'), programs: async () => ({ HAPROXY_BIN: await component('haproxy') }) },
  envoy: { skip: await skipReason('envoy'), programs: async () => ({ ENVOY_BIN: await component('envoy') }) },
  traefik: { skip: await skipReason('traefik'), programs: async () => ({ TRAEFIK_BIN: await component('traefik') }) },
  apache: { skip: await skipReason('apache2'), programs: async () => ({ APACHE_BIN: await component('apache2') }) },
  caddy: {
    skip: await skipReason('caddy', 'systemd-socket-activate'),
    programs: async () => ({
      CADDY_BIN: await component('caddy'),
      ACTIVATE_BIN: await component('systemd-socket-activate'),
    }),
  },
}

for (const [name, { skip, programs }] of Object.entries(EXAMPLES))
  test(`examples/${name}/run.sh rotates under proof, and leaves neither process nor file`, { skip }, async () => {
    assertRotated(await outputOf(name, await createFolder(), await programs()))
  })

test('examples/acme/run.sh shows control over its names, rotates under proof, and leaves neither process nor file', {
  skip: await skipReason('pebble', 'pebble-challtestsrv', 'nginx', 'openssl'),
}, async () => {
  const output = await outputOf('acme', await createFolder(), {
    ...(await nginxOpenssl()),
    PEBBLE_BIN: await component('pebble'),
    CHALLTESTSRV_BIN: await component('pebble-challtestsrv'),
  })
  const [, rehearsal = '', afterwards = ''] =
    /(once --dry-run\n[\s\S]*?)(\$ certferry once\n[\s\S]*)/.exec(output) ?? []
  assert.match(
    rehearsal,
    /^✓ web .* issued certificate \w+ for web\.example\.com, www\.example\.com, which is thrown away$/m,
  )
  assert.match(rehearsal, /^root\.pem$/m)
  assert.doesNotMatch(rehearsal, /^certs$/m, 'nothing was written')
  // Each order is looked at anew: those of the rehearsal, those of the first certificate.
  const asked = [...output.matchAll(/^http:\/\/(www|web)\.example\.com:\d+\/\.well-known\/acme-challenge\/\S+$/gm)]
  assert.deepEqual(asked.map(([, name]) => name).toSorted(), ['web', 'web', 'www', 'www'], output)
  assertRotated(afterwards)
})

test('examples/trust/run.sh rolls a root over: clients of both pass meanwhile, then those of the old one no more, and nothing is left', {
  skip: await skipReason('vault', 'nginx', 'openssl', 'curl'),
}, async () => {
  const output = await outputOf('trust', await createFolder(), await vaultNginxOpenssl())
  const lines = [...output.matchAll(/^(?:subject=|(?:old|new) client: ).*$/gm)].map(([line]) =>
    line.replace(/ ?= ?/g, '='),
  )
  const [passes, refused] = ['hello CN', '400 The SSL certificate error']
  const both = [
    'subject=CN=The new root',
    'subject=CN=The old root',
    `old client: ${passes}=old-client.example.com`,
    `new client: ${passes}=new-client.example.com`,
  ]
  assert.deepEqual(lines, [
    ...['subject=CN=The old root', `old client: ${passes}=old-client.example.com`, `new client: ${refused}`],
    ...both,
    ...both,
    ...['subject=CN=The new root', `old client: ${refused}`, `new client: ${passes}=new-client.example.com`],
  ])
  // What waits long is told as trouble.
  const [before, waiting, moved, last] = [...output.matchAll(/^web +(?:ACTIVE|DEGRADED) +(\S+) /gm)].map(
    ([, serial]) => serial,
  )
  assert.equal(before, waiting, 'the new certificate waits')
  assert.notEqual(waiting, moved)
  assert.equal(moved, last)
  assert.match(
    output,
    /"event":"trust\.proven",.*"2 CAs"[\s\S]*"event":"certificate\.written",[\s\S]*the certificate has moved/,
  )
})

test('examples/revocation/run.sh replaces our certificate when it is revoked, has a revoked client refused, and leaves nothing', {
  skip: await skipReason('vault', 'nginx', 'openssl', 'curl'),
}, async () => {
  const output = await outputOf('revocation', await createFolder(), await vaultNginxOpenssl())
  const [before, after, ofAda] = [
    /^web +ACTIVE +(\S+) .*✓$/m.exec(output)?.[1] ?? '',
    /"event":"rotation\.finished","certificate":"web","serial":"(\w+)".*"verified":true/.exec(output)?.[1] ?? '',
    /^\$ vault write pki\/revoke serial_number=(\S+)$/gm.exec(output.slice(output.indexOf('of ada is')))?.[1] ?? '',
  ]
  const told = /"event":"security\.certificate-revoked","certificate":"web","serial":"(\w+)"/.exec(output)?.[1] ?? ''
  assert.ok(told.startsWith(before.slice(0, 4)), output)
  assert.notEqual(after, told)
  const [, replaced, last] = [...output.matchAll(/^web +ACTIVE +(\w+)…\w+ .*✓$/gm)].map(([, start = '']) => start)
  assert.deepEqual([replaced, last], [after.slice(0, 4), after.slice(0, 4)], 'replaced once')
  const answers = [...output.matchAll(/^(?:ada|grace): .*$/gm)].map(([line]) => line)
  assert.deepEqual(answers, [
    'ada: hello CN=ada.example.com',
    'grace: hello CN=grace.example.com',
    'ada: 400 The SSL certificate error',
    'grace: hello CN=grace.example.com',
  ])
  const listed = [...output.matchAll(/^ +Serial Number: (\w+)$/gm)].map(([, serial]) => serial?.toLowerCase())
  assert.deepEqual(listed.toSorted(), [told, ofAda.replaceAll(':', '').toLowerCase()].toSorted())
})

test('examples/acme/run.sh says how a program that is missing is had, before it starts anything', async () => {
  const folder = await createFolder()
  const path = await createFolder()
  for (const name of ['bash', 'dirname', 'mktemp', 'rm']) await symlink(`/usr/bin/${name}`, join(path, name))
  const programs = { PATH: path, NGINX: '/usr/sbin/nginx' }
  const script = runScript('acme', folder, { programs })
  assert.equal(await script.ended, 69, script.output())
  assert.equal(script.output(), 'pebble is missing: install it, or set PEBBLE_BIN\n')
  await assertNothingLeft(folder)
})
