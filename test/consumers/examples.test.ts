import assert from 'node:assert/strict'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { component, skipReason } from '../support/components.ts'
import { assertNothingLeft, assertRotated } from '../support/example-run.ts'
import { startProgram } from '../support/program.ts'

const examples = fileURLToPath(new URL('../../examples', import.meta.url))
const root = await mkdtemp(join(tmpdir(), 'certferry-test-'))
after(() => rm(root, { recursive: true, force: true }))

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
    const folder = await mkdtemp(join(root, 'e-'))
    const env = { PATH: process.env.PATH ?? '', HOME: folder, TMPDIR: folder, ...(await programs()) }
    const script = startProgram([join(examples, name, 'run.sh'), '--seconds', '1'], env)
    assert.equal(await script.ended, 0, script.output())
    assertRotated(script.output())
    await assertNothingLeft(folder)
  })
