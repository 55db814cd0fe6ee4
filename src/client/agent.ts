import { Agent, type AgentOptions } from 'node:https'
import { connect as connectPlain, isIP, type Socket } from 'node:net'
import { type ConnectionOptions, connect, type SecureContext, type TLSSocket } from 'node:tls'

/** What undici hands to the function given as its option `connect`. */
export interface ConnectorTarget {
  readonly hostname: string
  readonly host?: string | undefined
  readonly protocol: string
  readonly port: string
  readonly servername?: string | null | undefined
  readonly localAddress?: string | null | undefined
  readonly httpSocket?: Socket | undefined
}

export type ConnectorCallback = (
  ...answer: [error: null, socket: Socket | TLSSocket] | [error: Error, socket: null]
) => void
export type Connector = (target: ConnectorTarget, done: ConnectorCallback) => void

export interface ConnectorOptions extends ConnectionOptions {
  /** For the connection and the handshake; 10 s by default. */
  readonly timeoutMs?: number
  /** Also offers HTTP/2, as undici does with its own option of this name. */
  readonly allowH2?: boolean
}

interface Following {
  readonly agent: Agent
  /** Later requests use this context, and no connection of an earlier one. */
  use(context: SecureContext, generation: string): void
}

/** An agent whose connections, pools and cached sessions belong to one generation each. */
export function followingAgent(options: AgentOptions, context: SecureContext, first: string): Following {
  const agent = new Agent(options)
  const { getName, keepSocketAlive } = agent
  const generationOf = new WeakMap<object, string>([[context, first]])
  const born = new WeakMap<object, string>()
  let current = first
  // Options of the agent are copied into those of each request; the name of a pool is asked for again when its socket is free or over.
  const name = (given: object | undefined) =>
    given && 'secureContext' in given && typeof given.secureContext === 'object' && given.secureContext
      ? (generationOf.get(given.secureContext) ?? '')
      : current
  agent.getName = (given) => `${getName.call(agent, given)}:${name(given)}`
  const { createConnection } = agent
  agent.createConnection = (given, done) => {
    const socket = createConnection.call(agent, given, done)
    if (socket) born.set(socket, name(given))
    return socket
  }
  Object.assign(agent, {
    keepSocketAlive: (socket: Socket) =>
      born.get(socket) === current && Reflect.apply(keepSocketAlive, agent, [socket]),
  })
  Object.assign(agent.options, { secureContext: context })
  return {
    agent,
    use: (next, generation) => {
      generationOf.set(next, generation)
      current = generation
      Object.assign(agent.options, { secureContext: next })
      for (const idle of Object.values(agent.freeSockets)) for (const socket of idle ?? []) socket.destroy()
    },
  }
}

const TIMEOUT_MS = 10_000

/** Opens connections for undici, each with the context of its moment, and none with a session of an earlier one. */
export function connectorOf(contextOf: () => SecureContext, options: ConnectorOptions = {}): Connector {
  const { timeoutMs = TIMEOUT_MS, allowH2 = false, ...tls } = options
  return ({ hostname, protocol, port, servername, localAddress, httpSocket }, done) => {
    const isSecure = protocol === 'https:'
    const address = {
      host: hostname,
      port: Number(port) || (isSecure ? 443 : 80),
      ...(localAddress ? { localAddress } : {}),
    }
    const name = tls.servername ?? (servername || (isIP(hostname) ? undefined : hostname))
    const socket: Socket = isSecure
      ? connect({
          ALPNProtocols: allowH2 ? ['h2', 'http/1.1'] : ['http/1.1'],
          ...tls,
          ...address,
          ...(name === undefined ? {} : { servername: name }),
          ...(httpSocket ? { socket: httpSocket } : {}),
          secureContext: contextOf(),
        })
      : connectPlain(address)
    const timer = setTimeout(
      () => socket.destroy(new Error(`no connection to ${hostname}:${address.port} within ${timeoutMs} ms`)),
      timeoutMs,
    )
    const fail = (error: Error) => {
      clearTimeout(timer)
      done(error, null)
    }
    socket.setNoDelay(true).setKeepAlive(true, 60_000)
    socket.once('error', fail)
    socket.once(isSecure ? 'secureConnect' : 'connect', () => {
      clearTimeout(timer)
      socket.off('error', fail)
      done(null, socket)
    })
  }
}
