import { registry } from '../registry.ts'
import { combined } from './combined.ts'
import { kubernetesSecret } from './kubernetes-secret.ts'
import { pem } from './pem.ts'

export const outputs = registry(pem, combined, kubernetesSecret)
