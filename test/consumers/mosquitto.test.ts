import { test } from 'node:test'
import { component, skipReason } from '../support/components.ts'
import { exampleConfig, exampleText } from '../support/consumer-example.ts'
import { assertConsumer, type Consumer, startServer } from '../support/consumer-rig.ts'

const skip = await skipReason('mosquitto')

const mosquitto: Consumer = {
  name: 'Mosquitto',
  config: exampleConfig('mosquitto'),
  start: async (place) => {
    const text = exampleText('mosquitto/mosquitto.conf').replaceAll('8883', `${place.port}`)
    const user = process.getuid?.() === 0 ? 'user root\n' : ''
    await place.write('mosquitto.conf', text + user)
    return startServer({ argv: [await component('mosquitto'), '-c', 'mosquitto.conf'], cwd: place.folder })
  },
}

test('Mosquitto takes twenty certificates by SIGHUP while clients connect', { skip }, (t) =>
  assertConsumer(t, mosquitto, { rotations: 20 }),
)
