import { registry } from '../registry.ts'
import { tls } from './tls.ts'
import type { Verifier, VerifierDeps } from './verifier.ts'

/** All kinds of verifier. */
export const verifiers = registry<VerifierDeps, Verifier>(tls)
