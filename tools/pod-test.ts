// node tools/pod-test.ts FOLDER: runs a pod that a real API server has admitted, in real containers, without a kubelet. FOLDER is one that
// tools/image-test.sh has filled, with the image of the Dockerfile. As root; installs nothing, and asks no image registry.
//
// podman 4.3 knows neither projected volumes nor native sidecars: the first are written to folders of the host as the kubelet would, and the
// pod asks for an init container and an ordinary one. Native sidecars are run by test/integration/kubernetes-pod.test.ts.
import { execFileSync } from 'node:child_process'
import { chmodSync, existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import * as z from 'zod'
import { startInjector } from '../test/support/injector.ts'
import { startKubernetes } from '../test/support/kubernetes.ts'
import { freePort } from '../test/support/nginx.ts'
import { AdmittedPod } from '../test/support/pod-runner.ts'
import { fieldOf, writePayload } from '../test/support/pod-volumes.ts'
import { served } from '../test/support/served.ts'
import { until } from '../test/support/until.ts'
import { signOnly, startVault, WEB_ROLE } from '../test/support/vault.ts'
import { setupPodLogin } from '../test/support/vault-kubernetes.ts'

const IMAGE = 'localhost/certferry:test'
const NGINX = 'localhost/nginx:test'
async function main(work: string) {
  const scratch = mkdtempSync(join(work, 'pod-'))
  chmodSync(scratch, 0o755)
  const podman = (...args: readonly string[]) => run(work, 'podman', args)
  nginxImage(work, scratch)
  await using cluster = await startKubernetes({ controllerManager: true })
  await using vault = await startVault({ authPlugins: ['kubernetes'] })
  await vault.setupPki({ roles: { web: WEB_ROLE } })
  await cluster.createNamespace('certferry')
  await cluster.createNamespace('shop', { 'pod-security.kubernetes.io/enforce': 'restricted' })
  await cluster.createServiceAccount('web', 'shop')
  const account = { role: 'web', serviceAccount: 'web', namespace: 'shop' }
  await setupPodLogin({ vault, cluster, kind: 'kubernetes', ...account, policy: signOnly('pki', 'web') })
  await using _injector = await startInjector({ cluster, vault, folder: scratch, image: IMAGE, namespace: 'shop' })
  const [port, metrics] = [await freePort(), await freePort()]
  const made = await cluster.api('POST', '/api/v1/namespaces/shop/pods', webPod(port, metrics))
  const pod = AdmittedPod.parse(made)
  console.log(`admitted: ${[...pod.spec.initContainers, ...pod.spec.containers].map(({ name }) => name).join(', ')}`)
  const manifest = join(scratch, 'pod.json')
  writeFileSync(manifest, JSON.stringify(await forPodman(pod, scratch, cluster)))
  try {
    podman('kube', 'play', manifest)
    const first = await until('nginx serves the first', () => served(port), { timeoutMs: 60_000 })
    console.log(`nginx serves ${first}`)
    const certferry = (...args: readonly string[]) =>
      podman(
        'exec',
        'web-certferry',
        '/usr/local/bin/node',
        '/app/dist/cli.cjs',
        ...args,
        '-c',
        '/etc/certferry/config.yaml',
      )
    console.log(certferry('rotate', 'web', '--wait').trim())
    const second = await served(port)
    if (second === first) throw new Error(`nginx still serves ${first}`)
    console.log(`nginx serves ${second}\n${certferry('status').trim()}`)
    console.log('pod: all checks passed')
  } catch (error) {
    console.error(podman('pod', 'logs', '--tail', '30', 'web'))
    throw error
  } finally {
    podman('kube', 'down', manifest)
    rmSync(scratch, { recursive: true, force: true })
  }
}

const run = (work: string, program: string, args: readonly string[]) =>
  execFileSync(
    program,
    ['--storage-driver', 'overlay', '--root', join(work, 'root'), '--runroot', join(work, 'run'), ...args],
    {
      encoding: 'utf8',
      env: { ...process.env, CONTAINERS_CONF: join(work, 'containers.conf') },
    },
  )

/** nginx of Debian, in an image of its own. */
function nginxImage(work: string, scratch: string) {
  const context = join(work, 'nginx')
  if (existsSync(context)) return
  const tar = join(scratch, 'nginx.tar')
  execFileSync('mmdebstrap', ['--quiet', '--variant=minbase', '--include=nginx-light', 'bookworm', tar])
  mkdirSync(context)
  execFileSync('mv', [tar, join(context, 'nginx.tar')])
  writeFileSync(join(context, 'Dockerfile'), 'FROM scratch\nADD nginx.tar /\n')
  run(work, 'buildah', ['bud', '--isolation', 'chroot', '--tag', NGINX, context])
  rmSync(join(context, 'nginx.tar'))
}

function webPod(port: number, metrics: number) {
  const careful = { allowPrivilegeEscalation: false, capabilities: { drop: ['ALL'] } }
  const conf = `daemon off; pid /tmp/nginx.pid; error_log stderr; events {} http { access_log off; client_body_temp_path /tmp/a; proxy_temp_path /tmp/b; fastcgi_temp_path /tmp/c; uwsgi_temp_path /tmp/d; scgi_temp_path /tmp/e; server { listen 127.0.0.1:${port} ssl; include /tls/web/tls.conf; } }`
  return {
    metadata: {
      name: 'web',
      annotations: {
        'certferry.io/certificate.web': `source: { kind: vault-pki, role: web, commonName: web.example.com, ttl: 72h }\noutputs: [{ kind: pem, directory: /tls/web, layout: nginx-include }]`,
        'certferry.io/reload.web': 'SIGHUP:nginx',
        'certferry.io/verify.web': `127.0.0.1:${port}`,
        'certferry.io/native-sidecar': 'false',
        'certferry.io/metrics-port': `${metrics}`,
      },
    },
    spec: {
      serviceAccountName: 'web',
      automountServiceAccountToken: false,
      securityContext: {
        runAsNonRoot: true,
        runAsUser: 10001,
        runAsGroup: 10001,
        seccompProfile: { type: 'RuntimeDefault' },
      },
      containers: [
        {
          name: 'nginx',
          image: NGINX,
          command: ['sh', '-c', `echo '${conf}' > /tmp/nginx.conf && exec nginx -e stderr -c /tmp/nginx.conf`],
          securityContext: careful,
        },
      ],
    },
  }
}

const Spec = z.looseObject({
  metadata: z.looseObject({}),
  spec: z.looseObject({ volumes: z.array(z.looseObject({ name: z.string() })) }),
})

/** The same pod in words that podman 4.3 has: what only a kubelet can make is made here. */
async function forPodman(pod: AdmittedPod, scratch: string, cluster: Parameters<typeof writePayload>[1]['cluster']) {
  const plain = async (volume: AdmittedPod['spec']['volumes'][number]) => {
    if (volume.emptyDir) return volume
    const path = join(scratch, volume.name)
    mkdirSync(path)
    await writePayload(volume, { pod, cluster, path, mountMemory: async () => {} })
    execFileSync('chown', ['-R', '10001:10001', path])
    return { name: volume.name, hostPath: { path, type: 'Directory' } }
  }
  const container = ({
    startupProbe: _probe,
    readinessProbe: _ready,
    livenessProbe: _live,
    ports: _ports,
    ...rest
  }: AdmittedPod['spec']['containers'][number]) => ({
    ...rest,
    imagePullPolicy: 'Never',
    env: rest.env.map(({ name, value, valueFrom }) => ({
      name,
      value: value ?? fieldOf(pod, valueFrom?.fieldRef.fieldPath ?? ''),
    })),
  })
  const { spec } = Spec.parse(pod)
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name: 'web' },
    spec: {
      hostNetwork: true,
      // It would start the init container again as well.
      restartPolicy: 'Never',
      shareProcessNamespace: spec.shareProcessNamespace,
      securityContext: spec.securityContext,
      initContainers: pod.spec.initContainers.map(container),
      containers: pod.spec.containers.map(container),
      volumes: await Promise.all(pod.spec.volumes.map(plain)),
    },
  }
}

const [folder] = process.argv.slice(2)

if (!folder || !existsSync(join(folder, 'containers.conf'))) {
  console.error('usage: node tools/pod-test.ts FOLDER   with FOLDER as tools/image-test.sh FOLDER has left it')
  process.exitCode = 64
} else await main(folder)
