import { test } from 'node:test'
import { askForTls } from '../../src/verifiers/start-tls.ts'
import { component, skipReason } from '../support/components.ts'
import { exampleConfig, exampleText } from '../support/consumer-example.ts'
import { assertConsumer, type Consumer, startServer } from '../support/consumer-rig.ts'

const skip = await skipReason('nats-server')

const nats: Consumer = {
  name: 'NATS',
  config: exampleConfig('nats'),
  beforeTls: async (socket) => {
    const refusal = await askForTls(socket, 'nats')
    if (refusal !== undefined) throw new Error(refusal)
  },
  start: async (place) => {
    await place.write('nats.conf', exampleText('nats/nats.conf'))
    const argv = [await component('nats-server'), '-c', 'nats.conf']
    return startServer({ argv, cwd: place.folder, env: { PORT: `${place.port}` } })
  },
}

test('NATS takes twenty certificates by SIGHUP while clients connect', { skip }, (t) =>
  assertConsumer(t, nats, { rotations: 20 }),
)
