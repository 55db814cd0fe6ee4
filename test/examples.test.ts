import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { access, glob, readdir, readFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { after, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { parseAllDocuments } from 'yaml'
import * as z from 'zod'
import { type Config, loadConfig } from '../src/config/config.ts'
import { injectManifests } from '../src/injector/manifests.ts'
import { composeFile, configMapText, deploymentFile, servicesOf, unitFile } from './support/examples.ts'

const examples = fileURLToPath(new URL('../examples/', import.meta.url))
const read = (name: string) => readFile(join(examples, name), 'utf8')
const folder = mkdtempSync(join(tmpdir(), 'certferry-test-'))
after(() => rmSync(folder, { recursive: true, force: true }))

/** Through a copy of its own mode: in a clone the file may be writable for the group, which certferry refuses. */
function load(text: string, env: Record<string, string> = {}): Config {
  const file = join(folder, 'config.yaml')
  writeFileSync(file, text, { mode: 0o600 })
  return loadConfig(file, env)
}

/** What the run.sh of the examples set. */
const RUN_ENV = {
  DIR: '/tmp/example',
  VAULT_ADDR: 'https://127.0.0.1:8200',
  VAULT_CACERT: '/tmp/example/vault-ca.pem',
  NGINX: '/usr/sbin/nginx',
  APACHE: '/usr/sbin/apache2',
  HTTPS_PORT: '8443',
  ADMIN_PORT: '9443',
  HTTP_PORT: '8080',
  ACME_PORT: '14000',
  SMTP_PASSWORD: 'vault:v1:AAAA',
  PORT: '5432',
  REDIS_PASSWORD: 'a-test',
  KAFKA_LIB: '/opt/kafka/libs',
  ADMIN_LISTENER_PORT: '9095',
}

/** What the tests look at; the config itself knows the options of a kind only as those of some kind. */
const Certificate = z.object({
  outputs: z.array(z.object({ directory: z.string() })),
  reload: z.array(z.object({ kind: z.string(), process: z.string().optional() })),
  verify: z.array(z.object({ kind: z.string() })),
})
const Approle = z.object({ kind: z.literal('approle'), secretIdFile: z.string() })

const certificateOf = ({ certificates }: Config) => z.tuple([Certificate]).parse(certificates)[0]

for (const [name, reloads] of [
  ['nginx/certferry.yaml', 1],
  ['acme/certferry.yaml', 1],
  ['trust/certferry.yaml', 1],
  ['revocation/certferry.yaml', 1],
  // These follow the directory by itself.
  ['cert-manager/certferry.yaml', 0],
  ['node-server/certferry.yaml', 0],
] as const) {
  test(`examples/${name} is valid with the variables of run.sh, and proves what it serves`, async () => {
    const { outputs, reload, verify } = certificateOf(load(await read(name), RUN_ENV))
    assert.ok(outputs.every(({ directory }) => directory.startsWith('/tmp/example/')))
    assert.equal(reload.length, reloads)
    assert.equal(verify.length, 1)
  })
}

for (const name of ['postgres', 'redis', 'mosquitto', 'nats', 'kafka', 'java', 'prometheus']) {
  test(`examples/${name}/certferry.yaml is valid with the variables of run.sh, and proves what it serves`, async () => {
    const { outputs, verify } = certificateOf(load(await read(`${name}/certferry.yaml`), RUN_ENV))
    assert.ok(outputs.every(({ directory }) => directory.startsWith('/tmp/example/')))
    assert.equal(verify.length, 1)
  })
}

for (const name of ['haproxy', 'envoy', 'traefik', 'apache', 'caddy']) {
  test(`examples/${name}/certferry.yaml is valid with the variables of run.sh, and proves what it serves`, async () => {
    const { outputs, verify } = certificateOf(load(await read(`${name}/certferry.yaml`), RUN_ENV))
    assert.deepEqual(
      outputs.map(({ directory }) => directory),
      ['/tmp/example/certs'],
    )
    assert.deepEqual(
      verify.map(({ kind }) => kind),
      ['tls'],
    )
  })
}

for (const name of ['secrets/certferry.yaml', 'exec/certferry.yaml']) {
  test(`examples/${name} is valid with the variables of run.sh`, async () => {
    const { secrets, exec } = load(await read(name), RUN_ENV)
    const [secret] = secrets
    assert.equal(secrets.length, 1)
    assert.ok((secret?.outputs.length ?? 0) > 0 || exec !== undefined, 'somebody gets it')
  })
}

test('the config of the compose file is valid, and every volume, config and service that it names is there', async () => {
  const compose = composeFile(await read('nginx/compose.yaml'))
  const config = load(compose.configs.certferry?.content ?? '')
  const services = Object.entries(compose.services)
  const unknown = services.flatMap(([name, service]) => [
    ...service.volumes
      .map((volume) => volume.split(':')[0] ?? '')
      .filter((volume) => !volume.startsWith('./') && !(volume in compose.volumes))
      .map((volume) => `${name}: volume ${volume}`),
    ...service.configs.filter(({ source }) => !(source in compose.configs)).map(({ source }) => `${name}: ${source}`),
    ...servicesOf(service).filter((other) => !(other in compose.services)),
  ])
  assert.deepEqual(unknown, [])
  for (const directory of certificateOf(config).outputs.map((output) => output.directory)) {
    assert.ok(compose.configs.nginx?.content.includes(`include ${directory}/tls.conf;`), directory)
  }
})

test('the sidecar of the compose file shares process namespace and network of nginx, and starts after it', async () => {
  const { certferry, nginx } = composeFile(await read('nginx/compose.yaml')).services
  assert.equal(certferry?.pid, 'service:nginx')
  assert.equal(certferry?.network_mode, 'service:nginx')
  assert.ok('nginx' in (certferry?.depends_on ?? {}))
  assert.equal(nginx?.depends_on['first-certificate']?.condition, 'service_completed_successfully')
  for (const service of [certferry, nginx]) {
    assert.equal(service?.read_only, true)
    assert.deepEqual(service?.cap_drop, ['ALL'])
  }
})

test('the config beside a Certificate of cert-manager is valid, and reads the volume that its comment mounts', async () => {
  const text = await read('cert-manager/cluster.yaml')
  const Manifest = z.object({ kind: z.string(), data: z.object({ 'config.yaml': z.string() }).optional() })
  const documents = parseAllDocuments(text)
  assert.ok(!('empty' in documents))
  const manifests = documents.map((document) => Manifest.parse(document.toJS()))
  assert.deepEqual(
    manifests.map(({ kind }) => kind),
    ['Certificate', 'ConfigMap'],
  )
  const { certificates } = load(manifests[1]?.data?.['config.yaml'] ?? '')
  assert.match(JSON.stringify(certificates[0]?.source), /"certFile":"\/mounted\/tls\.crt"/)
  assert.match(text, /secretName: web-tls\b[\s\S]*mountPath: \/mounted,[\s\S]*\n {2}secretName: web-tls\n/)
})

test('the ConfigMap of the pod is a valid config, whose paths are those of the volumes', async () => {
  const manifests = deploymentFile(await read('kubernetes/by-hand.yaml'))
  const config = load(configMapText(manifests, 'web-certferry', 'config.yaml'))
  const nginx = configMapText(manifests, 'web-nginx', 'nginx.conf')
  const { sidecar } = manifests
  const mounted = sidecar.volumeMounts.map(({ mountPath }) => mountPath)
  const { outputs, reload } = certificateOf(config)
  for (const { directory } of outputs) {
    assert.ok(nginx.includes(`include ${directory}/tls.conf;`))
    assert.notEqual(mounted.indexOf(dirname(directory)), -1, `${directory} is no directory within a volume`)
  }
  assert.ok(mounted.includes(dirname(config.admin.socket ?? '')))
  assert.ok(sidecar.args.includes('/etc/certferry/config.yaml') && mounted.includes('/etc/certferry'))
  assert.deepEqual(reload, [{ kind: 'signal', process: 'nginx' }])
  const [, port] = (config.admin.listen ?? '').split(':')
  assert.deepEqual(
    sidecar.ports.map(({ containerPort }) => `${containerPort}`),
    [port],
  )
  assert.equal(manifests.annotations['prometheus.io/port'], port)
})

test('in the pod certferry is a native sidecar, whose probes are those that do not wait for nginx', async () => {
  const { sidecar, app, pod } = deploymentFile(await read('kubernetes/by-hand.yaml'))
  assert.equal(sidecar.restartPolicy, 'Always')
  assert.equal(sidecar.startupProbe?.httpGet.path, '/startupz')
  assert.equal(sidecar.readinessProbe?.httpGet?.path, '/readyz')
  assert.equal(sidecar.livenessProbe?.httpGet.path, '/livez')
  assert.equal(pod.shareProcessNamespace, true)
  assert.equal(pod.automountServiceAccountToken, false)
  assert.ok(pod.terminationGracePeriodSeconds >= 10)
  for (const container of [sidecar, app]) assert.ok(container.resources.limits.memory)
})

test('the pod meets the pod security standard "restricted", both containers as one user', async () => {
  const { sidecar, app, pod } = deploymentFile(await read('kubernetes/by-hand.yaml'))
  const { runAsNonRoot, runAsUser, fsGroup, seccompProfile } = pod.securityContext
  assert.deepEqual({ runAsNonRoot, seccompProfile }, { runAsNonRoot: true, seccompProfile: { type: 'RuntimeDefault' } })
  assert.ok(runAsUser > 0 && fsGroup > 0)
  for (const { securityContext } of [sidecar, app]) {
    assert.deepEqual(securityContext, {
      allowPrivilegeEscalation: false,
      readOnlyRootFilesystem: true,
      capabilities: { drop: ['ALL'] },
    })
  }
})

test('every mount of the pod has its volume, the one of the keys is in memory, and nginx only reads it', async () => {
  const { sidecar, app, pod } = deploymentFile(await read('kubernetes/by-hand.yaml'))
  const mounts = [...sidecar.volumeMounts, ...app.volumeMounts]
  assert.deepEqual(new Set(mounts.map(({ name }) => name)), new Set(pod.volumes.map(({ name }) => name)))
  assert.ok(
    mounts.every((mount) => !('subPath' in mount)),
    'a subPath mount never sees a new file',
  )
  assert.equal(pod.volumes.find(({ name }) => name === 'tls')?.emptyDir?.medium, 'Memory')
  assert.equal(app.volumeMounts.find(({ name }) => name === 'tls')?.readOnly, true)
})

test('the annotated deployment gets a sidecar that writes what nginx reads, as its user, and is meant for restricted namespaces', async () => {
  const context = {
    image: 'certferry:0.1.0',
    nativeSidecars: true,
    vaultAnnotations: false,
    ownNamespace: undefined,
    defaults: { 'vault-address': 'https://vault.vault.svc:8200', 'vault-role': 'web' },
  }
  const source = await read('kubernetes/deployment.yaml')
  const { text, injected, warnings } = injectManifests(source, context, 'deployment.yaml')
  assert.deepEqual({ injected, warnings }, { injected: ['Deployment web'], warnings: [] })
  const manifests = deploymentFile(text)
  const { sidecar, pod, annotations } = manifests
  const [output] = certificateOf(load(annotations['certferry.io/rendered-config'] ?? '')).outputs
  const nginx = configMapText(manifests, 'web-nginx', 'nginx.conf')
  assert.ok(nginx.includes(`ssl_certificate ${output?.directory}/tls.crt;`))
  assert.ok(nginx.includes(`ssl_certificate_key ${output?.directory}/tls.key;`))
  assert.equal(pod.shareProcessNamespace, true)
  assert.equal(sidecar.securityContext.runAsUser, pod.securityContext.runAsUser)
  assert.ok(pod.securityContext.runAsNonRoot && pod.securityContext.seccompProfile.type === 'RuntimeDefault')
})

test('the systemd config is valid, and the unit gives it the folders, the credential and the rights it names', async () => {
  const config = load(await read('systemd/config.yaml'))
  const unit = unitFile(await read('systemd/certferry.service'))
  const [credential] = (unit.get('LoadCredential')?.[0] ?? '').split(':')
  assert.equal(Approle.parse(config.vault?.auth).secretIdFile, `/run/credentials/certferry.service/${credential}`)
  assert.equal(dirname(config.admin.socket ?? ''), `/run/${unit.get('RuntimeDirectory')}`)
  const state = `/var/lib/${unit.get('StateDirectory')}`
  assert.deepEqual(config.volumes, [state])
  assert.equal(dirname(config.audit?.file ?? ''), state)
  assert.ok(certificateOf(config).outputs.every(({ directory }) => dirname(directory) === state))
  assert.deepEqual(unit.get('CapabilityBoundingSet'), ['CAP_KILL'])
})

test('systemd does not restart certferry for what no restart mends, and lets no core dump out', async () => {
  const unit = unitFile(await read('systemd/certferry.service'))
  assert.deepEqual(unit.get('RestartPreventExitStatus'), ['64 78'])
  assert.deepEqual(unit.get('ExecReload'), ['/bin/kill -HUP $MAINPID'])
  assert.deepEqual(unit.get('LimitCORE'), ['0'])
  assert.deepEqual(unit.get('NoNewPrivileges'), ['yes'])
  assert.deepEqual(unit.get('ProtectSystem'), ['strict'])
})

test('the README of every example is short, and the files that it names are there', async () => {
  const names = await Array.fromAsync(glob('*/README.md', { cwd: examples }))
  const folders = (await readdir(examples, { withFileTypes: true })).filter((entry) => entry.isDirectory())
  assert.deepEqual(names.map((name) => dirname(name)).sort(), folders.map(({ name }) => name).sort())
  for (const name of names) {
    const text = await read(name)
    assert.ok(text.split('\n').length <= 61, `${name} is longer than 60 lines`)
    for (const [, target = ''] of text.matchAll(/\]\(([^)#]+)\)/g)) await access(join(examples, dirname(name), target))
  }
})
