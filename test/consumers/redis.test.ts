import { test } from 'node:test'
import { component, skipReason } from '../support/components.ts'
import { exampleConfig, exampleText } from '../support/consumer-example.ts'
import { assertConsumer, type Consumer, startServer } from '../support/consumer-rig.ts'

const skip = await skipReason('redis-server')

const redis: Consumer = {
  name: 'Redis',
  config: exampleConfig('redis'),
  variables: { REDIS_PASSWORD: 'a-test' },
  start: async (place) => {
    const port = `tls-port ${place.port}\nrequirepass ${place.variables.REDIS_PASSWORD}\n`
    const file = await place.write('redis.conf', exampleText('redis/redis.conf') + port)
    return startServer({ argv: [await component('redis-server'), file], cwd: place.folder })
  },
}

test('Redis takes twenty certificates by CONFIG SET while clients connect', { skip }, (t) =>
  assertConsumer(t, redis, { rotations: 20 }),
)
