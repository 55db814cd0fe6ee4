import { readFile } from 'node:fs/promises'
import { test } from 'node:test'
import { component, skipReason } from '../support/components.ts'
import { exampleConfig, exampleText } from '../support/consumer-example.ts'
import { assertConsumer, type Consumer, type Place, startServer } from '../support/consumer-rig.ts'

const skip = await skipReason('prometheus')

const pairOf = async ({ path }: Place) => ({
  cert: await readFile(path('tls/tls.crt'), 'utf8'),
  key: await readFile(path('tls/tls.key'), 'utf8'),
})

const prometheus: Consumer = {
  name: 'Prometheus',
  config: exampleConfig('prometheus'),
  client: pairOf,
  start: async (place) => {
    const webFile = await place.write('web.yml', exampleText('prometheus/web.yml'))
    const text = exampleText('prometheus/prometheus.yml').replaceAll('9090', `${place.port}`)
    const configFile = await place.write('prometheus.yml', text)
    const [config, web, data] = [configFile, webFile, place.path('data')]
    const places = [`--config.file=${config}`, `--web.config.file=${web}`, `--storage.tsdb.path=${data}`]
    const argv = [await component('prometheus'), ...places, `--web.listen-address=127.0.0.1:${place.port}`]
    return startServer({ argv })
  },
}

test('Prometheus takes twenty certificates without being told, as a server and as a client', { skip }, (t) =>
  assertConsumer(t, prometheus, { rotations: 20 }),
)
