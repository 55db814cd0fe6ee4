import { registry } from '../registry.ts'
import { exec } from './exec.ts'
import { http } from './http.ts'
import type { Reloader, ReloaderDeps } from './reloader.ts'
import { rolloutRestart } from './rollout-restart.ts'
import { signal } from './signal.ts'

/** All kinds of reloader. */
export const reloaders = registry<ReloaderDeps, Reloader>(signal, exec, http, rolloutRestart)
