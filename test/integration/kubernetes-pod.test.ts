import assert from 'node:assert/strict'
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import * as z from 'zod'
import { bundleCli } from '../../tools/build.ts'
import { nodeIn } from '../support/bundled.ts'
import type { Certferry } from '../support/certferry.ts'
import { skipReason } from '../support/components.ts'
import { startInjector } from '../support/injector.ts'
import { CONTROL_PLANE, startKubernetes, type TestKubernetes } from '../support/kubernetes.ts'
import { freePort } from '../support/nginx.ts'
import { podsReason, type RunningPod, runPod, type TestImage } from '../support/pod-runner.ts'
import { served } from '../support/served.ts'
import { until } from '../support/until.ts'
import { signOnly, startVault, type TestVault, WEB_ROLE } from '../support/vault.ts'
import { setupPodLogin } from '../support/vault-kubernetes.ts'

const EXAMPLE = readFileSync(new URL('../../examples/kubernetes/deployment.yaml', import.meta.url), 'utf8')
const IMAGE = 'certferry:0.1.0'
const CERTFERRY = ['/app/node', '/app/cli.cjs']
const CONFIG = '/etc/certferry/config.yaml'
const NAMESPACE = 'shop'
const RESTRICTED = { 'pod-security.kubernetes.io/enforce': 'restricted' }
/** What `restricted` asks of the user's own containers. */
const CAREFUL = {
  allowPrivilegeEscalation: false,
  readOnlyRootFilesystem: true,
  capabilities: { drop: ['ALL'] },
}

const skip =
  podsReason() || (await skipReason(...CONTROL_PLANE, 'vault', 'vault-plugin-auth-kubernetes', 'nginx', 'openssl'))

describe('a pod that asks by annotation for a certificate', { skip, timeout: 600_000 }, () => {
  const folder = mkdtempSync(join(tmpdir(), 'certferry-admitted-'))
  let cluster: TestKubernetes
  let vault: TestVault
  let injector: Certferry
  let images: Record<string, TestImage>

  before(async () => {
    chmodSync(folder, 0o755)
    cluster = await startKubernetes({ controllerManager: true })
    vault = await startVault({ authPlugins: ['kubernetes'] })
    await vault.setupPki({ mount: 'pki_int', roles: { web: WEB_ROLE } })
    await cluster.createNamespace('certferry')
    await cluster.createNamespace(NAMESPACE, RESTRICTED)
    await cluster.createServiceAccount('web', NAMESPACE)
    const policy = signOnly('pki_int', 'web')
    const account = { role: 'web', serviceAccount: 'web', namespace: NAMESPACE }
    await setupPodLogin({ vault, cluster, kind: 'kubernetes', ...account, policy })
    injector = await startInjector({ cluster, vault, folder, image: IMAGE, namespace: NAMESPACE })
    images = await makeImages(folder)
  })
  after(async () => {
    await injector?.[Symbol.asyncDispose]()
    await vault?.[Symbol.asyncDispose]()
    await cluster?.[Symbol.asyncDispose]()
    rmSync(folder, { recursive: true, force: true })
  })

  const run = (pod: unknown) => runPod({ pod, cluster, images })
  /** The one pod that a controller has made. */
  const podOf = (app: string) =>
    until(`there is a pod of ${app}`, async () => {
      const list = await cluster.api('GET', `/api/v1/namespaces/${NAMESPACE}/pods?labelSelector=app%3D${app}`)
      return z.object({ items: z.array(z.unknown()) }).parse(list).items[0]
    })

  test('of the example Deployment starts nginx with it, is told of the next one by SIGHUP, and proves that it is served', async () => {
    const [port, metrics] = [await freePort(), await freePort()]
    const manifests = adapt(EXAMPLE, {
      'replicas: 2': 'replicas: 1',
      'listen 8443': `listen 127.0.0.1:${port}`,
      'certferry.io/verify.web: 127.0.0.1:8443': `certferry.io/verify.web: 127.0.0.1:${port}\n        certferry.io/metrics-port: '${metrics}'`,
    })
    await cluster.kubectl(['apply', '--namespace', NAMESPACE, '--filename', '-'], manifests)
    await using pod = await run(await podOf('web'))
    assert.deepEqual(pod.history().slice(0, 3), ['certferry started', 'certferry is up', 'nginx started'])

    const first = await until('nginx serves the first', () => served(port))
    assert.equal(first, await serialIn(pod))
    const told = await pod.exec('certferry', [...CERTFERRY, 'rotate', 'web', '--wait', '-c', CONFIG])
    assert.match(told, /^✓ web {2}rotated, serial/m)
    const second = await served(port)
    assert.notEqual(second, first)
    assert.equal(second, await serialIn(pod))
    assert.match(await pod.exec('certferry', [...CERTFERRY, 'status', '-c', CONFIG]), /^web +ACTIVE .*✓$/m)
    assert.equal(await logins(vault), 1)

    await pod.stop()
    assert.deepEqual(pod.history().slice(-4), [
      'nginx told SIGTERM',
      'nginx ended 0',
      'certferry told SIGTERM',
      'certferry ended 0',
    ])
  })

  test('of a Job has it before the job begins, and ends after it, so that the Job is complete', async () => {
    const metrics = await freePort()
    await cluster.api('POST', `/apis/batch/v1/namespaces/${NAMESPACE}/jobs`, {
      metadata: { name: 'report' },
      spec: {
        template: {
          metadata: {
            labels: { app: 'report' },
            annotations: {
              'certferry.io/certificate.client': 'pki_int/sign/web?common_name=report.example.com&ttl=72h',
              'certferry.io/metrics-port': `${metrics}`,
            },
          },
          spec: {
            ...commonSpec(),
            restartPolicy: 'Never',
            containers: [
              {
                name: 'report',
                image: 'tools',
                command: ['openssl', 'x509', '-in', '/tls/client/tls.crt', '-noout', '-subject'],
                securityContext: CAREFUL,
              },
            ],
          },
        },
      },
    })
    await using pod = await run(await podOf('report'))
    assert.equal(await pod.finished, 'Succeeded', pod.container('report').log())
    assert.match(pod.container('report').log(), /CN ?= ?report\.example\.com/)
    assert.deepEqual(pod.history(), [
      'certferry started',
      'certferry is up',
      'report started',
      'report ended 0',
      'certferry told SIGTERM',
      'certferry ended 0',
    ])
    const status = z.object({ status: z.object({ succeeded: z.int().optional() }) })
    await until('the Job is complete', async () => {
      const job = await cluster.api('GET', `/apis/batch/v1/namespaces/${NAMESPACE}/jobs/report`)
      return status.parse(job).status.succeeded === 1
    })
  })

  test('without a shared process namespace sees no process of the app, and the app no key it may write', async () => {
    const metrics = await freePort()
    const made = await cluster.api('POST', `/api/v1/namespaces/${NAMESPACE}/pods`, {
      metadata: {
        name: 'apart',
        annotations: {
          'certferry.io/certificate.web': 'pki_int/sign/web?common_name=web.example.com&ttl=72h',
          'certferry.io/metrics-port': `${metrics}`,
        },
      },
      spec: {
        ...commonSpec(),
        containers: [{ name: 'app', image: 'tools', command: ['sleep', '600'], securityContext: CAREFUL }],
      },
    })
    await using pod = await run(made)
    const processes = await pod.exec('app', ['sh', '-c', 'cat /proc/[0-9]*/cmdline'])
    assert.ok(!processes.includes('cli.cjs'), processes)
    await assert.rejects(pod.exec('app', ['touch', '/tls/web/tls.key']), /Read-only file system/)
    const before = await serialIn(pod)
    await pod.exec('certferry', [...CERTFERRY, 'rotate', 'web', '--wait', '-c', CONFIG])
    assert.notEqual(await serialIn(pod), before)
  })

  test('without a shared process namespace is told by reload-helper, and proves that it serves the next one', async () => {
    const [port, metrics] = [await freePort(), await freePort()]
    const socket = '/run/certferry-reload/app.sock'
    const paths = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi']
      .map((each) => `${each}_temp_path /tmp/${each};`)
      .join(' ')
    const conf = `daemon off; pid /tmp/nginx.pid; events {} http { access_log off; ${paths} server { listen 127.0.0.1:${port} ssl; include /tls/web/tls.conf; } }`
    const made = await cluster.api('POST', `/api/v1/namespaces/${NAMESPACE}/pods`, {
      metadata: {
        name: 'helped',
        annotations: {
          'certferry.io/certificate.web':
            'source: { kind: vault-pki, mount: pki_int, role: web, commonName: web.example.com, ttl: 72h }\noutputs: [{ kind: pem, directory: /tls/web, layout: nginx-include }]',
          'certferry.io/reload.web': 'helper',
          'certferry.io/verify.web': `127.0.0.1:${port}`,
          'certferry.io/metrics-port': `${metrics}`,
        },
      },
      spec: {
        ...commonSpec(),
        volumes: [{ name: 'tmp', emptyDir: {} }],
        containers: [
          {
            name: 'app',
            image: IMAGE,
            command: [
              ...CERTFERRY,
              'reload-helper',
              '--socket',
              socket,
              '--',
              'sh',
              '-c',
              `echo '${conf}' > /tmp/nginx.conf && exec nginx -e stderr -c /tmp/nginx.conf`,
            ],
            volumeMounts: [{ name: 'tmp', mountPath: '/tmp' }],
            securityContext: CAREFUL,
          },
        ],
      },
    })
    await using pod = await run(made)
    const first = await until('nginx serves the first', () => served(port))
    await pod.exec('certferry', [...CERTFERRY, 'rotate', 'web', '--wait', '-c', CONFIG])
    const second = await served(port)
    assert.notEqual(second, first)
    assert.equal(second, await serialIn(pod))
  })

  test('on a cluster without native sidecars has it all the same before the app starts, and issues it once', async () => {
    const metrics = await freePort()
    const made = await cluster.api('POST', `/api/v1/namespaces/${NAMESPACE}/pods`, {
      metadata: {
        name: 'classic',
        annotations: {
          'certferry.io/certificate.web': 'pki_int/sign/web?common_name=classic.example.com&ttl=72h',
          'certferry.io/native-sidecar': 'false',
          'certferry.io/metrics-port': `${metrics}`,
        },
      },
      spec: {
        ...commonSpec(),
        containers: [{ name: 'app', image: 'tools', command: ['sleep', '600'], securityContext: CAREFUL }],
      },
    })
    const issuedBefore = await issued(vault)
    await using pod = await run(made)
    assert.deepEqual(pod.history().slice(0, 3), ['certferry-init started', 'certferry-init ended 0', 'app started'])
    await pod.exec('certferry', [...CERTFERRY, 'wait', '-c', CONFIG])
    assert.match(await serialIn(pod), /^[0-9A-F]+$/)
    assert.equal(await issued(vault), issuedBefore + 1)
  })
})

const commonSpec = () => ({
  serviceAccountName: 'web',
  automountServiceAccountToken: false,
  securityContext: {
    runAsNonRoot: true,
    runAsUser: 10001,
    runAsGroup: 10001,
    fsGroup: 10001,
    seccompProfile: { type: 'RuntimeDefault' },
  },
})

/** Puts other values in place of those of the example; each of them must be there. */
function adapt(text: string, values: Readonly<Record<string, string>>): string {
  return Object.entries(values).reduce((adapted, [from, to]) => {
    assert.ok(adapted.includes(from), `the example does not say ${from}`)
    return adapted.replaceAll(from, to)
  }, text)
}

/** The image of certferry is this clone, bundled as in the image; the others are programs of this machine. */
async function makeImages(folder: string): Promise<Record<string, TestImage>> {
  const app = join(folder, 'app')
  mkdirSync(app, { mode: 0o755 })
  await bundleCli(app)
  await nodeIn(app)
  return {
    [IMAGE]: { entrypoint: CERTFERRY, cmd: ['run', '-c', CONFIG], user: 65532, folders: { '/app': app } },
    'nginxinc/nginx-unprivileged:1.29-alpine': {},
    tools: {},
  }
}

/** Serial of the certificate on the volume, as the app sees it. */
async function serialIn(pod: RunningPod): Promise<string> {
  const app = pod.history().some((line) => line === 'nginx started') ? 'nginx' : 'app'
  const text = await pod.exec(app, ['openssl', 'x509', '-in', '/tls/web/tls.crt', '-noout', '-serial'])
  return text.trim().replace('serial=', '')
}

const logins = async (vault: TestVault) =>
  (await vault.audited()).filter(({ path, error }) => path === 'auth/kubernetes/login' && error === '').length

const issued = async (vault: TestVault) =>
  (await vault.audited()).filter(({ path, serial }) => path === 'pki_int/sign/web' && serial !== undefined).length
