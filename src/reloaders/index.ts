import { registry } from '../registry.ts'
import { exec } from './exec.ts'
import { haproxy } from './haproxy.ts'
import { http } from './http.ts'
import type { Reloader, ReloaderDeps } from './reloader.ts'
import { rolloutRestart } from './rollout-restart.ts'
import { signal } from './signal.ts'
import { touch } from './touch.ts'

/** All kinds of reloader. */
export const reloaders = registry<ReloaderDeps, Reloader>(signal, exec, http, haproxy, touch, rolloutRestart)
