import { once } from 'node:events'
import type { Server } from 'node:http'
import type { Server as HttpsServer } from 'node:https'
import { SidecarError, systemCode } from '../errors.ts'
import type { AdminTls } from './admin-tls.ts'
import { listenOnSocket } from './control-socket.ts'
import { CONTROL_LIMITS, createServer, type Limits, PUBLIC_LIMITS } from './http-server.ts'
import { controlRoutes, publicRoutes, type RouteDeps } from './routes.ts'

/** Config `admin`. */
export interface AdminOptions {
  /** `host:port` of the read-only endpoints; port 0 takes a free one. On a loopback address only loopback names are answered to. */
  readonly listen?: string | undefined
  readonly tls?: AdminTls | undefined
  /** Absolute path of the control socket. */
  readonly socket?: string | undefined
}

export interface AdminDeps extends RouteDeps {
  /** For tests that cannot wait. */
  readonly limits?: Partial<Limits>
  /** How often the TLS files are looked at, in ms. */
  readonly tlsCheckMs?: number
}

export interface Admin extends AsyncDisposable {
  /** Base of the read-only endpoints, such as `http://127.0.0.1:9443`. */
  readonly url: string | undefined
  /** Looks at the TLS files now. Never rejects: what cannot be used is told, and the certificate in use stays. */
  reloadTls(): Promise<void>
}

const TLS_CHECK_MS = 30_000

/**
 * Serves health, metrics and status read-only on `listen`, and all that and changes on the control socket; each is left out when
 * not configured. Disposing ends within `drainMs`. Throws ADDRESS_IN_USE, CONFIG_INVALID and as `listenOnSocket` does; then
 * nothing is left listening.
 */
export async function openAdmin({ listen, tls, socket }: AdminOptions, deps: AdminDeps): Promise<Admin> {
  await using opened = new AsyncDisposableStack()
  if (socket !== undefined) opened.use(await openControl(socket, deps))
  const front = listen === undefined ? undefined : opened.use(await openFront(listen, tls, deps))
  const held = opened.move()
  return {
    url: front?.url,
    reloadTls: async () => front?.reloadTls?.(),
    [Symbol.asyncDispose]: () => held.disposeAsync(),
  }
}

async function openControl(path: string, deps: AdminDeps): Promise<AsyncDisposable> {
  await using opened = new AsyncDisposableStack()
  const limits = { ...CONTROL_LIMITS, ...deps.limits, stallMs: CONTROL_LIMITS.stallMs }
  const { server } = opened.use(createServer({ routes: controlRoutes(deps), limits, emit: deps.emit }))
  opened.defer(await listenOnSocket(server, path))
  outlive(server)
  deps.emit('admin.listening', { address: path })
  return opened.move()
}

async function openFront(listen: string, tls: AdminTls | undefined, deps: AdminDeps) {
  await using opened = new AsyncDisposableStack()
  const { server } = opened.use(
    createServer({
      routes: publicRoutes(deps),
      limits: { ...PUBLIC_LIMITS, ...deps.limits },
      emit: deps.emit,
      // A web page can have its own name point to this machine (DNS rebinding), and so would read what only this machine may.
      isOurName: isLoopback(listen) ? isLoopback : undefined,
      tls: tls && { requestCert: tls.clientCaFile !== undefined, rejectUnauthorized: true },
    }),
  )
  const keeper =
    tls && 'setSecureContext' in server
      ? opened.use(
          (await import('./admin-tls.ts')).keepTls(server, tls, {
            emit: deps.emit,
            checkMs: deps.tlsCheckMs ?? TLS_CHECK_MS,
          }),
        )
      : undefined
  await keeper?.look()
  const url = `${tls ? 'https' : 'http'}://${await listenOnPort(server, listen)}`
  outlive(server)
  deps.emit('admin.listening', { address: url })
  const held = opened.move()
  return { url, reloadTls: keeper?.look, [Symbol.asyncDispose]: () => held.disposeAsync() }
}

const isLoopback = (hostAndPort: string) =>
  /^(?:localhost|127(?:\.\d{1,3}){3}|\[::1\])(?::\d{1,5})?$/i.test(hostAndPort)

/** Resolves with `host:port` as it is listened on. */
async function listenOnPort(server: Server | HttpsServer, listen: string): Promise<string> {
  const [, host = '', port = ''] = /^\[?(.*?)\]?:(\d{1,5})$/.exec(listen) ?? []
  if (host === '' || Number(port) > 65_535)
    throw new SidecarError('CONFIG_INVALID', `admin.listen "${listen}" is not host:port`)
  try {
    server.listen({ host, port: Number(port) })
    await once(server, 'listening')
  } catch (cause) {
    const code = systemCode(cause)
    if (code === 'EADDRINUSE')
      throw new SidecarError('ADDRESS_IN_USE', `cannot listen on ${listen}: another process does already`, { cause })
    const why = code === 'EACCES' ? 'this user may not (ports below 1024 need CAP_NET_BIND_SERVICE)' : code
    throw new SidecarError('CONFIG_INVALID', `admin.listen: cannot listen on ${listen}: ${why}`, { cause })
  }
  const address = server.address()
  return listen.replace(/\d+$/, String(typeof address === 'object' && address ? address.port : port))
}

/** A connection that cannot be accepted (ENFILE, ENOBUFS) is no reason to end, which an 'error' that nobody hears would be. */
const outlive = (server: Server | HttpsServer) => void server.on('error', () => {})
