import { registry } from '../registry.ts'
import { combined } from './combined.ts'
import { derFiles } from './der.ts'
import { kubernetesSecret } from './kubernetes-secret.ts'
import { pem } from './pem.ts'
import { pkcs12 } from './pkcs12.ts'
import { ssh } from './ssh.ts'

export const outputs = registry(pem, combined, pkcs12, derFiles, ssh, kubernetesSecret)
