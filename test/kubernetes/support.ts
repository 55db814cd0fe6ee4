import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createKubernetes, type Kubernetes } from '../../src/kubernetes/client.ts'
import { KubernetesOptions } from '../../src/kubernetes/options.ts'
import { createTestCa, type TestCa } from '../support/ca.ts'
import { type FaultProxy, startFaultProxy } from '../support/fault-proxy.ts'

export const TOKEN = 'eyJhbGciOiJub25lIn0.canary-of-the-service-account.sig'

/** An API server of one's own making, over TLS, and what a pod knows of it. */
export interface ApiServer extends AsyncDisposable {
  readonly server: FaultProxy
  readonly ca: TestCa
  readonly directory: string
  readonly options: KubernetesOptions
  open(more?: object, timeoutMs?: number): Kubernetes & AsyncDisposable
}

export async function startApiServer(onRequest: FaultProxy['onRequest']): Promise<ApiServer> {
  const ca = await createTestCa()
  const { certificatePem, keyPem } = await ca.issue({ altNames: ['127.0.0.1'] })
  const server = await startFaultProxy(onRequest, { tls: { cert: certificatePem, key: keyPem } })
  const directory = await mkdtemp(join(tmpdir(), 'certferry-kubernetes-'))
  await writeFile(join(directory, 'ca.crt'), ca.rootPem)
  await writeFile(join(directory, 'token'), TOKEN)
  await writeFile(join(directory, 'namespace'), 'shop\n')
  const given = {
    apiServer: server.address,
    caFile: join(directory, 'ca.crt'),
    tokenFile: join(directory, 'token'),
    pod: 'web-0',
  }
  const options = KubernetesOptions.parse(given)
  return {
    server,
    ca,
    directory,
    options,
    open: (more = {}, timeoutMs = 10_000) => {
      return createKubernetes({ ...options, ...more }, { env: {}, timeoutMs })
    },
    [Symbol.asyncDispose]: async () => {
      await server[Symbol.asyncDispose]()
      await rm(directory, { recursive: true })
    },
  }
}
