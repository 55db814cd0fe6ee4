import assert from 'node:assert/strict'
import { test } from 'node:test'
import { component, skipReason } from '../support/components.ts'
import { outputOf, temporaryFolders } from '../support/example-run.ts'

const createFolder = await temporaryFolders()

/** What run.sh is told of the programs, and what its client prints at the end. */
const EXAMPLES = {
  postgres: { skip: await skipReason('postgres'), POSTGRES_BIN: 'postgres', says: /^TLSv1\.3$/m },
  redis: { skip: await skipReason('redis-server'), REDIS_BIN: 'redis-server', says: /^PONG$/m },
  mosquitto: { skip: await skipReason('mosquitto'), MOSQUITTO_BIN: 'mosquitto', says: /^mosquitto_sub /m },
  nats: { skip: await skipReason('nats-server'), NATS_BIN: 'nats-server', says: /in service/ },
  prometheus: {
    skip: await skipReason('prometheus', 'curl'),
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
    const found: Record<string, string> = {}
    for (const [variable, program] of Object.entries(programs)) found[variable] = await component(program)
    const output = await outputOf(name, await createFolder(), found)
    assert.match(output, /✓ web {2}obtained, .* target not there yet/)
    const [before, afterwards] = [...output.matchAll(/^web +ACTIVE +(\S+) .*$/gm)]
    assert.ok(before && afterwards && before[1] !== afterwards[1], output)
    assert.match(afterwards[0], /✓$/)
    assert.match(output, /^✓ web {2}rotated, serial [0-9a-f]+$/m)
    assert.match(output, says)
  })
}
