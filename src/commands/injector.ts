import type { Io } from './io.ts'
import { run } from './run.ts'

/** The sidecar of a config that has the section `injector`, and with it the admission webhook. Throws CONFIG_INVALID where it has none. */
export const injector = (file: string, io: Io): Promise<void> => run(file, io, { needs: 'injector' })
