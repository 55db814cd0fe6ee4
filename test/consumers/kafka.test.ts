import { execFile } from 'node:child_process'
import { writeFile } from 'node:fs/promises'
import { test } from 'node:test'
import { promisify } from 'node:util'
import { component, skipReason } from '../support/components.ts'
import { exampleConfig, exampleText } from '../support/consumer-example.ts'
import { assertConsumer, type Consumer, startServer } from '../support/consumer-rig.ts'

const skip = await skipReason('java', 'kafka')

const kafka: Consumer = {
  name: 'Kafka',
  config: exampleConfig('kafka'),
  variables: { KAFKA_LIB: skip ? '' : await component('kafka'), ADMIN_LISTENER_PORT: 'port', CONTROLLER_PORT: 'port' },
  prepare: ({ path }) => writeFile(path('admin.properties'), exampleText('kafka/admin.properties')),
  start: async (place) => {
    const { variables, port, write } = place
    const text = exampleText('kafka/server.properties').replaceAll('${PORT}', `${port}`)
    const filled = text.replace(/\$\{([A-Z_]+)\}/g, (whole, name: string) => variables[name] ?? whole)
    const file = await write('server.properties', filled)
    const program = await component('java')
    const flags = ['-Xmx1g', '-XX:TieredStopAtLevel=1', '-cp', `${variables.KAFKA_LIB}/*`]
    const format = ['kafka.tools.StorageTool', 'format', '-t', 'AAAAAAAAAAAAAAAAAAAAAA', '-c', file]
    await promisify(execFile)(program, [...flags, ...format])
    return startServer({ argv: [program, ...flags, 'kafka.Kafka', file] })
  },
}

test('Kafka takes twenty PEM key stores through its admin API while clients connect', { skip }, (t) =>
  assertConsumer(t, kafka, { rotations: 20 }),
)
