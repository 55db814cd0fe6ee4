import { listenOnSocket } from './control-socket.ts'
import { CONTROL_LIMITS, createServer, type Limits, listenOnPort, outlive, PUBLIC_LIMITS } from './http-server.ts'
import type { TlsFiles } from './keep-tls.ts'
import { controlRoutes, publicRoutes, type RouteDeps } from './routes.ts'

/** Config `admin`. */
export interface AdminOptions {
  /** `host:port` of the read-only endpoints; port 0 takes a free one. On a loopback address only loopback names are answered to. */
  readonly listen?: string | undefined
  readonly tls?: TlsFiles | undefined
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

async function openFront(listen: string, tls: TlsFiles | undefined, deps: AdminDeps) {
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
          (await import('./keep-tls.ts')).keepTls(server, {
            files: () => tls,
            code: 'ADMIN_TLS',
            checkMs: deps.tlsCheckMs ?? TLS_CHECK_MS,
            onLoaded: (event) => deps.emit('admin.tls-loaded', event),
            onFailed: (event) => deps.emit('admin.tls-failed', event),
          }),
        )
      : undefined
  await keeper?.look()
  const url = `${tls ? 'https' : 'http'}://${await listenOnPort(server, listen, 'admin.listen')}`
  outlive(server)
  deps.emit('admin.listening', { address: url })
  const held = opened.move()
  return {
    url,
    reloadTls: keeper && (async () => void (await keeper.look())),
    [Symbol.asyncDispose]: () => held.disposeAsync(),
  }
}

const isLoopback = (hostAndPort: string) =>
  /^(?:localhost|127(?:\.\d{1,3}){3}|\[::1\])(?::\d{1,5})?$/i.test(hostAndPort)
