import assert from 'node:assert/strict'
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { component, skipReason } from '../support/components.ts'
import { startProgram } from '../support/program.ts'

const examples = fileURLToPath(new URL('../../examples', import.meta.url))
const root = await mkdtemp(join(tmpdir(), 'certferry-test-'))
after(() => rm(root, { recursive: true, force: true }))

/** What run.sh is told of the programs, and what its client prints at the end. */
const EXAMPLES = {
  postgres: { skip: await skipReason('postgres'), POSTGRES_BIN: 'postgres', says: /^TLSv1\.3$/m },
  redis: { skip: await skipReason('redis-server'), REDIS_BIN: 'redis-server', says: /^PONG$/m },
  mosquitto: { skip: await skipReason('mosquitto'), MOSQUITTO_BIN: 'mosquitto', says: /^mosquitto_sub /m },
  nats: { skip: await skipReason('nats-server'), NATS_BIN: 'nats-server', says: /in service/ },
  prometheus: {
    skip: await skipReason('prometheus'),
    PROMETHEUS_BIN: 'prometheus',
    // It scraped itself, as a client with the certificate that it serves.
    says: /"__name__":"up".*"1"\]/,
  },
  java: { skip: await skipReason('java'), JAVA_BIN: 'java', says: /^curl /m },
  kafka: { skip: await skipReason('java', 'kafka'), KAFKA_LIB: 'kafka', says: /in service/ },
} as const

for (const [name, { skip, says, ...programs }] of Object.entries(EXAMPLES)) {
  test(`examples/${name}/run.sh rotates under proof, ends by itself, and leaves neither process nor file`, {
    skip,
  }, async () => {
    const folder = await mkdtemp(join(root, 'e-'))
    const env: Record<string, string> = { PATH: process.env.PATH ?? '', HOME: folder, TMPDIR: folder }
    for (const [variable, program] of Object.entries(programs)) env[variable] = await component(program)
    const script = startProgram([join(examples, name, 'run.sh'), '--seconds', '1'], env)
    assert.equal(await script.ended, 0, script.output())
    const output = script.output()
    assert.match(output, /✓ web {2}obtained, .* target not there yet/)
    const [before, afterwards] = [...output.matchAll(/^web +ACTIVE +(\S+) .*$/gm)]
    assert.ok(before && afterwards && before[1] !== afterwards[1], output)
    assert.match(afterwards[0], /✓$/)
    assert.match(output, /^✓ web {2}rotated, serial [0-9a-f]+$/m)
    assert.match(output, says)
    assert.deepEqual(await processesWith(folder), [])
    assert.deepEqual(await readdir(folder), [])
  })
}

/** Every process of an example has its folder in its environment. */
async function processesWith(folder: string): Promise<string[]> {
  const ids = (await readdir('/proc')).filter((id) => /^\d+$/.test(id))
  const found = ids.map(async (id) => {
    const environment = await readFile(`/proc/${id}/environ`, 'utf8').catch(() => '')
    return environment.includes(folder) ? await readFile(`/proc/${id}/cmdline`, 'utf8').catch(() => id) : undefined
  })
  return (await Promise.all(found)).filter((line) => line !== undefined)
}
