import { isBuiltin } from 'node:module'
import type { Plugin } from 'rolldown'

/**
 * Modules of our dependencies that no call of certferry reaches: in the bundle each is replaced by one that throws when it is used. They
 * would cost time at every start, and memory for as long as certferry runs (docs/performance.md). `npm run bench` and the tests of the
 * bundle would meet one that is reached after all.
 */
const LEFT_OUT: Readonly<Record<string, string>> = {
  // node-vault is given its transport, and only `request` of it is called, without a schema and without a template.
  '/axios/': 'node-vault is given its transport',
  '/acme-client/src/axios.js': 'acme-client is given its transport',
  '/acme-client/src/verify.js': 'the CA looks at challenges, certferry does not',
  '/acme-client/src/auto.js': 'orders are placed step by step',
  '/node-vault/src/commands.js': 'only `request` of node-vault is called',
  'https of /node-vault/': 'node-vault is given its transport',
  '/tv4/': 'node-vault is given what it needs of it',
  '/mustache/': 'only paths of node-vault commands need it',
  '/debug/': 'node-vault is given its own',
  // Bodies are text, HTTP is 1.1.
  '/undici/lib/web/fetch/body.js': 'bodies of requests are text',
  '/undici/lib/web/fetch/formdata': 'bodies of requests are text',
  '/undici/lib/web/webidl': 'bodies of requests are text',
  '/undici/lib/dispatcher/client-h2.js': 'allowH2 is off',
  // Lines go to a stream of our own.
  '/thread-stream/': 'pino is given its stream',
  '/sonic-boom/': 'pino is given its stream',
  '/pino/lib/transport.js': 'pino is given its stream',
  // Commands are functions of ours, in this process.
  'node:child_process of /commander/': 'no subcommand is another program',
  'worker_threads of /pino/': 'pino runs in the main thread',
  // Metrics are scraped from this process alone.
  '/prom-client/lib/cluster.js': 'there is one process',
  '/prom-client/lib/pushgateway.js': 'metrics are scraped',
  '/prom-client/lib/summary.js': 'no metric is a summary',
  '/@opentelemetry/api/': 'no metric has exemplars',
}

const PREFIX = '\0left-out:'

/** Leaves them out of a bundle. */
export const leaveOut: Plugin = {
  name: 'leave-out',
  async resolveId(source, importer, options) {
    const resolved = isBuiltin(source)
      ? undefined
      : await this.resolve(source, importer, { ...options, skipSelf: true })
    const found = Object.keys(LEFT_OUT).find((part) => {
      const [module, user] = part.split(' of ')
      return user === undefined
        ? resolved?.id.includes(`/node_modules${part}`)
        : source === module && importer?.includes(`/node_modules${user}`)
    })
    return found === undefined ? null : { id: `${PREFIX}${found}.cjs` }
  },
  load(id) {
    if (!id.startsWith(PREFIX)) return null
    const name = id.slice(PREFIX.length, -'.cjs'.length)
    return { code: standIn(name, LEFT_OUT[name] ?? ''), moduleType: 'js' }
  },
}

/** Whatever is taken from it throws when it is called, and not before: most modules take what they need when they load. */
const standIn = (name: string, why: string) =>
  name === '/debug/'
    ? // A logger is made of it at once.
      'module.exports = () => () => {}'
    : `'use strict'
function refuse() { throw new Error(${JSON.stringify(`${name} is not part of the bundle: ${why}`)}) }
module.exports = new Proxy(refuse, {
  get: (_, key) => (typeof key === 'symbol' || key === '__esModule' ? undefined : key === 'prototype' ? refuse.prototype : module.exports),
})
`
