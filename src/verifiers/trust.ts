import type { TrustSet } from '../core/trust.ts'
import { registry } from '../registry.ts'
import { clientCa } from './client-ca.ts'
import type { Verifier, VerifierDeps } from './verifier.ts'

/** All kinds of proof that a target trusts what it should. */
export const trustVerifiers = registry<VerifierDeps, Verifier<TrustSet>>(clientCa)
