import { writeFile } from 'node:fs/promises'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { component, skipReason } from '../support/components.ts'
import { exampleConfig } from '../support/consumer-example.ts'
import { assertConsumer, type Consumer, startServer } from '../support/consumer-rig.ts'

const skip = await skipReason('java')

const java: Consumer = {
  name: 'Java',
  config: exampleConfig('java'),
  prepare: ({ path }) => writeFile(path('password'), 'a-test\n', { mode: 0o600 }),
  start: async ({ path, port }) => {
    const program = fileURLToPath(new URL('../../examples/java/Main.java', import.meta.url))
    const argv = [await component('java'), '-Xmx64m', '-XX:TieredStopAtLevel=1', program]
    return startServer({
      argv,
      env: { PORT: `${port}`, KEY_STORE: path('tls/keystore.p12'), PASSWORD_FILE: path('password') },
    })
  },
}

test('Java takes twenty PKCS#12 key stores without being told, while clients connect', { skip }, (t) =>
  assertConsumer(t, java, { rotations: 20 }),
)
