import * as z from 'zod'
import { SidecarError } from '../errors.ts'
import { type Control, RotateRequest } from './control.ts'
import type { Emit } from './events.ts'
import { type Health, liveness, overallHealth, readiness } from './health.ts'
import type { Metrics } from './metrics.ts'
import { type Handler, json, type Question, type Reply, type Routes, text } from './router.ts'
import { statusJson } from './status.ts'

export interface RouteDeps {
  readonly control: Control
  readonly metrics: Pick<Metrics, 'contentType' | 'text'>
  readonly emit: Emit
  /** Wall clock, ms. */
  readonly now: () => number
}

const ROTATE = '/rotate'
const RELOAD_CONFIG = '/reload-config'

/** What anybody who reaches the port may ask: reads only. Tries to change something are refused and told. */
export function publicRoutes(deps: RouteDeps): Routes {
  const deny = denier(deps)
  return new Map([
    ...readRoutes(deps),
    [ROTATE, { POST: deny('rotate') }],
    [RELOAD_CONFIG, { POST: deny('reload-config') }],
  ])
}

/** What those who may open the control socket ask. */
export function controlRoutes(deps: RouteDeps): Routes {
  const { control, emit } = deps
  const rotate: Handler = async ({ body, signal }) => {
    const request = parseBody(body)
    const certificates = request.certificates === 'all' ? [] : request.certificates
    const command = request.certificates === 'all' ? 'rotate --all' : 'rotate'
    emit('control.request', { command, certificates, reason: request.reason, allowed: true })
    return json(request.wait ? 200 : 202, await control.rotate(request, signal))
  }
  const reloadConfig: Handler = async ({ signal }) => {
    emit('control.request', { command: 'reload-config', certificates: [], reason: '', allowed: true })
    return json(200, await control.reloadConfig(signal))
  }
  return new Map([...readRoutes(deps), [ROTATE, { POST: rotate }], [RELOAD_CONFIG, { POST: reloadConfig }]])
}

function readRoutes({ control, metrics }: RouteDeps): Routes {
  const ready = answered(() => readiness(control.snapshot(), control.unready()))
  return new Map(
    Object.entries<Handler>({
      '/livez': answered(() => liveness(control.stuck())),
      '/readyz': ready,
      '/startupz': ready,
      '/healthz': answered(() =>
        overallHealth(control.snapshot(), { stuck: control.stuck(), unready: control.unready() }),
      ),
      '/metrics': async () => ({ status: 200, type: metrics.contentType, body: await metrics.text() }),
      '/status': () => json(200, statusJson(control.snapshot())),
    }).map(([path, GET]) => [path, { GET }]),
  )
}

const answered =
  (health: () => Health) =>
  ({ query }: Question): Reply => {
    const { ok, line, detail } = health()
    const isVerbose = query.has('verbose') && query.get('verbose') !== 'false'
    return isVerbose ? json(ok ? 200 : 503, detail) : text(ok ? 200 : 503, line)
  }

function parseBody(body: string): RotateRequest {
  try {
    return RotateRequest.parse(JSON.parse(body))
  } catch (error) {
    const why = error instanceof z.ZodError ? z.prettifyError(error).replaceAll('\n', ' ') : 'not JSON'
    throw new SidecarError('USAGE', `POST ${ROTATE}: ${why}`, { cause: error })
  }
}

const DENIALS_MS = 60_000

/** Told once a minute and command: whoever reaches the port must not be able to fill the audit log. */
function denier({ emit, now }: RouteDeps) {
  return (command: string): Handler => {
    let told = Number.NEGATIVE_INFINITY
    return () => {
      if (Math.abs(now() - told) >= DENIALS_MS) {
        told = now()
        emit('control.request', { command, certificates: [], reason: '', allowed: false })
      }
      return text(403, 'changes are made over the control socket only')
    }
  }
}
