import assert from 'node:assert/strict'
import { symlink } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { component, skipReason } from '../support/components.ts'
import { assertNothingLeft, assertRotated, outputOf, runScript, temporaryFolders } from '../support/example-run.ts'

const createFolder = await temporaryFolders()

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
    NGINX: await component('nginx'),
    PEBBLE_BIN: await component('pebble'),
    CHALLTESTSRV_BIN: await component('pebble-challtestsrv'),
    OPENSSL: await component('openssl'),
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
