import { component } from './components.ts'
import { type Consumer, exampleFile, type Place, startServer } from './consumer-rig.ts'

/** The example as it is; `via: master` differs from it in the reload, and in the socket of the master. */
export const haproxyConsumer = (via: 'runtime' | 'master'): Consumer => ({
  name: `HAProxy, ${via}`,
  config: 'haproxy/certferry.yaml',
  start: async (place) => {
    const config = await place.fill('haproxy/haproxy.cfg')
    const argv = [await component('haproxy'), '-W', '-db', '-f', config]
    const master = via === 'master' ? ['-S', `${place.path('master.sock')},mode,600`] : []
    return startServer({ argv: [...argv, ...master], env: place.variables })
  },
  ...(via === 'master' && { config: { text: byMaster } }),
})

const byMaster = async ({ folder }: Place) =>
  (await exampleFile('haproxy/certferry.yaml')).replace(
    /^ {4}reload: .*$/m,
    `    reload: [{ kind: haproxy, via: master, socket: "${folder}/master.sock" }]`,
  )
