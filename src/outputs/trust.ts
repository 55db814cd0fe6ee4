import type { TrustSet } from '../core/trust.ts'
import { registry } from '../registry.ts'
import type { Output } from './output.ts'
import { trustCrl } from './trust-crl.ts'
import { trustPem } from './trust-pem.ts'
import { trustPkcs12 } from './trust-pkcs12.ts'

/** All kinds of output of a trust. */
export const trustOutputs = registry<undefined, Output<TrustSet>>(trustPem, trustCrl, trustPkcs12)
