import { EventEmitter } from 'node:events'
import type { Agent, AgentOptions } from 'node:https'
import { setTimeout as sleep } from 'node:timers/promises'
import {
  type ConnectionOptions,
  connect,
  createSecureContext,
  type SecureContext,
  type SecureContextOptions,
  type Server,
  type TLSSocket,
} from 'node:tls'
import { type Connector, type ConnectorOptions, connectorOf, followingAgent } from './agent.ts'
import { TlsContextError } from './error.ts'
import { follow } from './follow.ts'
import { directoriesOf, locate, messageOf, readPlacedSet, type SetOptions, type TlsSet } from './set.ts'

export type { Connector, ConnectorCallback, ConnectorOptions, ConnectorTarget } from './agent.ts'
export { TlsContextError, type TlsErrorCode } from './error.ts'
export { readSet, type SetOptions, type TlsSet } from './set.ts'

export interface TlsContextOptions extends SetOptions {
  /** Anything else of a secure context, such as `minVersion` or `ciphers`; kept at each change. */
  readonly tls?: Omit<SecureContextOptions, 'cert' | 'key' | 'ca' | 'pfx' | 'passphrase'>
  /** How long the first set may take to appear; 0 by default: it must be there. */
  readonly waitMs?: number
  /** How often to look besides watching; by default every 30 s, and every second where watching does not work. */
  readonly pollMs?: number
  /** `false` where file systems do not tell of changes that other machines make, such as NFS: then only `pollMs` counts. */
  readonly watch?: boolean
}

export interface TlsContextEvents {
  /** After each change, when the servers and agents already use it. */
  readonly change: [set: TlsSet]
  /** When a new set does not load, once for each; without a listener it becomes a warning of the process. */
  readonly error: [error: TlsContextError]
}

type Listener<Name extends keyof TlsContextEvents> = (...args: TlsContextEvents[Name]) => void

/** The certificate, key and trust of a directory, as they are now. What does not load changes nothing: the last good set stays. */
export interface TlsContext extends AsyncDisposable, Disposable {
  /** The set in use. */
  readonly current: TlsSet
  /** The same, for `secureContext` of node:tls. */
  readonly secureContext: SecureContext
  /** Options for `createServer` of node:https, node:tls and node:http2, as of now: `attach` what you make of them. */
  serverOptions(): SecureContextOptions
  /** Has a server use the current set, and each later one; until it is closed. */
  attach<S extends Server>(server: S): S
  /** For the option of this name, of a server that has other certificates as well. */
  SNICallback(servername: string, done: (error: Error | null, context?: SecureContext) => void): void
  /** Options for a client, as of now. */
  clientOptions(): { readonly secureContext: SecureContext }
  /** `connect` of node:tls, with the set of this moment. */
  connect(options: ConnectionOptions): TLSSocket
  /** An agent for `request` of node:https; a request never goes over a connection of an earlier set. */
  agent(options?: AgentOptions): Agent
  /** For `new Agent({ connect })` of undici. */
  connector(options?: ConnectorOptions): Connector
  on<Name extends keyof TlsContextEvents>(event: Name, listener: Listener<Name>): TlsContext
  off<Name extends keyof TlsContextEvents>(event: Name, listener: Listener<Name>): TlsContext
  /** Looks now; true where a new set was taken. Throws what is wrong with it. */
  reload(): Promise<boolean>
  /** Ends the watching. Servers and agents keep the set they have. */
  close(): void
}

interface Loaded {
  readonly set: TlsSet
  readonly context: SecureContext
  readonly signature: string
}

/** Throws TlsContextError where there is no usable set, after `waitMs`. Keeps no process alive. */
export async function tlsContext(options: TlsContextOptions): Promise<TlsContext> {
  const emitter = new EventEmitter()
  const servers = new Set<Server>()
  const agents = new Set<(loaded: Loaded) => void>()
  let loaded = await first(options)
  let refused: string | undefined
  let looking: Promise<boolean> | undefined
  let [isAskedAgain, isAttending] = [false, false]

  const take = (next: Loaded) => {
    loaded = next
    for (const server of servers) server.setSecureContext(secureOptions(options, next.set))
    for (const use of agents) use(next)
    emitter.emit('change', next.set)
  }
  /** One look at a time. Throws what is wrong with the set that is there now. */
  const look = async () => {
    const { signature } = await locate(options)
    if (signature === loaded.signature) return false
    const next = await loadSet(options)
    if (next.signature === loaded.signature) return false
    take(next)
    return true
  }
  const lookOnce = (): Promise<boolean> => {
    looking ??= look().finally(() => {
      looking = undefined
    })
    return looking
  }
  const complain = (cause: unknown) => {
    const message = messageOf(cause)
    const error =
      cause instanceof TlsContextError ? cause : new TlsContextError('TLS_CONTEXT_REFUSED', message, { cause })
    if (message === refused) return
    refused = message
    if (emitter.listenerCount('error') > 0) emitter.emit('error', error)
    else process.emitWarning(`certferry keeps the certificate it has: ${message}`, { type: 'TlsContextWarning' })
  }
  /** Whatever is noticed while one look goes on is looked at by another one after it. */
  const noticed = async () => {
    isAskedAgain = true
    if (isAttending) return
    isAttending = true
    while (isAskedAgain) {
      await looking?.catch(() => {})
      isAskedAgain = false
      try {
        await lookOnce()
        refused = undefined
      } catch (error) {
        complain(error)
      }
    }
    isAttending = false
  }
  const stop = follow(directoriesOf(options), () => void noticed(), {
    pollMs: options.pollMs,
    watches: options.watch ?? true,
  })

  const self: TlsContext = {
    get current() {
      return loaded.set
    },
    get secureContext() {
      return loaded.context
    },
    serverOptions: () => secureOptions(options, loaded.set),
    attach: (server) => {
      servers.add(server)
      server.once('close', () => servers.delete(server))
      server.setSecureContext(secureOptions(options, loaded.set))
      return server
    },
    SNICallback: (_name, done) => done(null, loaded.context),
    clientOptions: () => ({ secureContext: loaded.context }),
    connect: (given) => connect({ ...given, secureContext: loaded.context }),
    agent: (given = {}) => {
      const { agent, use } = followingAgent(given, loaded.context, loaded.signature)
      agents.add(({ context, signature }) => use(context, signature))
      return agent
    },
    connector: (given) => connectorOf(() => loaded.context, given),
    on: (event, listener) => {
      emitter.on(event, listener)
      return self
    },
    off: (event, listener) => {
      emitter.off(event, listener)
      return self
    },
    reload: async () => {
      await looking?.catch(() => {})
      return lookOnce()
    },
    close: stop,
    [Symbol.dispose]: stop,
    [Symbol.asyncDispose]: async () => stop(),
  }
  return self
}

const AGAIN_MS = 100

async function first(options: TlsContextOptions): Promise<Loaded> {
  const deadline = performance.now() + (options.waitMs ?? 0)
  for (;;) {
    try {
      return await loadSet(options)
    } catch (error) {
      if (performance.now() >= deadline) throw error
      await sleep(AGAIN_MS)
    }
  }
}

async function loadSet(options: TlsContextOptions): Promise<Loaded> {
  const { set, signature } = await readPlacedSet(options)
  try {
    return { set, signature, context: createSecureContext(secureOptions(options, set)) }
  } catch (cause) {
    const message = `the set in ${set.readFrom} is refused by node:tls: ${messageOf(cause)}`
    throw new TlsContextError('TLS_CONTEXT_REFUSED', message, { cause })
  }
}

const secureOptions = ({ tls, passphrase }: TlsContextOptions, { cert, key, ca }: TlsSet): SecureContextOptions => ({
  ...tls,
  cert,
  key,
  ...(ca ? { ca } : {}),
  ...(passphrase === undefined ? {} : { passphrase }),
})
