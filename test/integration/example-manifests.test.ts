import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { chmod, chown, cp, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { bundleCli } from '../../tools/build.ts'
import { nodeIn } from '../support/bundled.ts'
import { component, skipReason } from '../support/components.ts'
import { configMapText, deploymentFile } from '../support/examples.ts'
import { freePort, startNginx } from '../support/nginx.ts'
import { startProgram } from '../support/program.ts'
import { signOnly, startVault, type TestVault, WEB_ROLE } from '../support/vault.ts'

const run = promisify(execFile)
const repository = fileURLToPath(new URL('../..', import.meta.url))
const PATH = process.env.PATH ?? ''
const USER = 10001

const root = await mkdtemp(join(tmpdir(), 'certferry-test-'))
await chmod(root, 0o755)
after(() => rm(root, { recursive: true, force: true }))
await bundleCli(root)
const certferry = [await nodeIn(root), join(root, 'cli.cjs')]

/** An ordinary user with these capabilities and no other, now or later. */
const asUser = (capabilities = '-all') => [
  'setpriv',
  `--reuid=${USER}`,
  `--regid=${USER}`,
  '--clear-groups',
  '--no-new-privs',
  ...['inh-caps', 'ambient-caps', 'bounding-set'].map((set) => `--${set}=${capabilities}`),
]

async function whyNot(): Promise<string | false> {
  const missing = await skipReason('vault', 'nginx')
  if (missing) return missing
  if (process.getuid?.() !== 0) return 'takes root, to become other users'
  return false
}
const skip = await whyNot()

/** Vault with what examples/nginx/setup-vault.sh makes; role-id and secret-id go to `folder`, which the user may read. */
async function prepareVault(vault: TestVault, folder: string) {
  await vault.setupPki({ mount: 'pki_int', roles: { web: WEB_ROLE } })
  const { roleId, secretId } = await vault.setupApprole({ policy: signOnly('pki_int', 'web') })
  await mkdir(folder)
  const credentials = { 'role-id': roleId, 'secret-id': await secretId() }
  for (const [name, content] of Object.entries(credentials)) {
    await writeFile(join(folder, name), content, { mode: 0o400 })
    await chown(join(folder, name), USER, USER)
  }
}

/** Puts other values in place of those of an example; each of them must be there. */
function adapt(text: string, values: Readonly<Record<string, string>>): string {
  return Object.entries(values).reduce((adapted, [from, to]) => {
    assert.ok(adapted.includes(from), `the example does not say ${from}`)
    return adapted.replaceAll(from, to)
  }, text)
}

/** `$1`: folder, `$2`: nginx, the rest: certferry. In a mount and a process namespace of its own, as a pod has. */
const POD = `
set -eu
folder=$1 nginx=$2
shift 2
mount -t tmpfs -o size=4m,mode=2777,gid=${USER} tmpfs "$folder/tls"
user=(env -i PATH="$PATH" ${asUser().join(' ')})
"\${user[@]}" "$@" run -c "$folder/config.yaml" &
sidecar=$!
"\${user[@]}" "$@" wait -c "$folder/config.yaml"
"\${user[@]}" "$nginx" -e stderr -c "$folder/nginx.conf" -g 'daemon off;' &
until [ -s "$folder/tmp/nginx.pid" ]; do sleep 0.05; done
"\${user[@]}" "$@" rotate web --wait -c "$folder/config.yaml"
stat -c 'directory %u %a' "$folder/tls/web"
stat -L -c 'key %u %a' "$folder/tls/web/tls.key"
cat "/proc/$sidecar/status"
"\${user[@]}" "$@" status -c "$folder/config.yaml"
`

test('the pod rotates as one ordinary user without capabilities, on a volume whose top everybody may write', {
  skip,
}, async () => {
  const folder = await mkdtemp(join(root, 'pod-'))
  await chmod(folder, 0o755)
  await using vault = await startVault()
  await prepareVault(vault, join(folder, 'vault'))
  const manifests = deploymentFile(await readFile(join(repository, 'examples/kubernetes/by-hand.yaml'), 'utf8'))
  const port = `${await freePort()}`
  const config = adapt(configMapText(manifests, 'web-certferry', 'config.yaml'), {
    'https://vault.vault.svc:8200': vault.address,
    '  caFile: /etc/vault/ca.pem\n': '',
    '/etc/vault': join(folder, 'vault'),
    '/run/certferry': join(folder, 'control'),
    '/tls': join(folder, 'tls'),
    '0.0.0.0:9443': '127.0.0.1:0',
    '8443': port,
  })
  const nginx = adapt(configMapText(manifests, 'web-nginx', 'nginx.conf'), {
    '/tmp/': `${folder}/tmp/`,
    '/tls/web': join(folder, 'tls/web'),
    'listen 8443': `listen 127.0.0.1:${port}`,
  })
  await writeFile(join(folder, 'config.yaml'), config, { mode: 0o644 })
  await writeFile(join(folder, 'nginx.conf'), nginx, { mode: 0o644 })
  for (const name of ['tls', 'control', 'tmp']) {
    await mkdir(join(folder, name))
    await chmod(join(folder, name), 0o2777)
  }
  const unshare = ['unshare', '--mount', '--pid', '--fork', '--kill-child', '--mount-proc']
  const pod = startProgram([...unshare, 'bash', '-c', POD, 'pod', folder, await component('nginx'), ...certferry], {
    PATH,
  })
  assert.equal(await pod.ended, 0, pod.output())
  const output = pod.output()
  assert.match(output, /^✓ web {2}rotated, serial/m)
  assert.match(output, /^web +ACTIVE .*✓$/m)
  assert.match(output, new RegExp(`^directory ${USER} 2?700$`, 'm'))
  assert.match(output, new RegExp(`^key ${USER} 600$`, 'm'))
  assert.match(output, /^CapEff:\t0+$/m)
})

test('systemd finds nothing wrong with the units', {
  skip: await run('systemd-analyze', ['--version']).then(
    () => false,
    () => 'takes systemd-analyze',
  ),
}, async () => {
  const folder = await mkdtemp(join(root, 'units-'))
  const from = join(repository, 'examples/systemd')
  for (const unit of ['certferry.service', 'certferry-ready.service']) {
    // The program need not be installed here.
    const text = adapt(await readFile(join(from, unit), 'utf8'), { '/usr/bin/certferry': process.execPath })
    await writeFile(join(folder, unit), text)
  }
  await writeFile(join(folder, 'nginx.service'), `[Service]\nExecStart=${process.execPath}\n`)
  await mkdir(join(folder, 'nginx.service.d'))
  await cp(join(from, 'nginx-after-certferry.conf'), join(folder, 'nginx.service.d/certferry.conf'))
  const units = ['certferry', 'certferry-ready', 'nginx'].map((name) => join(folder, `${name}.service`))
  const { stdout, stderr } = await run('systemd-analyze', ['verify', '--man=no', ...units], {
    env: { PATH, SYSTEMD_UNIT_PATH: `${folder}:` },
  })
  assert.equal(stdout + stderr, '')
})

test('an ordinary user with CAP_KILL alone rotates an nginx of root, with the config for systemd', {
  skip,
}, async () => {
  const folder = await mkdtemp(join(root, 'host-'))
  await chmod(folder, 0o755)
  await using vault = await startVault()
  await prepareVault(vault, join(folder, 'credentials'))
  const state = join(folder, 'state')
  const control = join(folder, 'control')
  for (const [path, mode] of [
    [state, 0o750],
    [control, 0o700],
  ] as const) {
    await mkdir(path, { mode })
    await chown(path, USER, USER)
  }
  const port = await freePort()
  const config = join(folder, 'config.yaml')
  const text = adapt(await readFile(join(repository, 'examples/systemd/config.yaml'), 'utf8'), {
    'https://vault.example.com:8200': vault.address,
    '  caFile: /etc/certferry/vault-ca.pem\n': '',
    '/etc/certferry/role-id': join(folder, 'credentials/role-id'),
    '/run/credentials/certferry.service': join(folder, 'credentials'),
    '/run/certferry': control,
    '/var/lib/certferry': state,
    '/run/nginx.pid': join(folder, 'nginx.pid'),
    '127.0.0.1:9443': '127.0.0.1:0',
    '127.0.0.1:443': `127.0.0.1:${port}`,
  })
  await writeFile(config, text, { mode: 0o644 })
  const sidecar = startProgram([...asUser('-all,+kill'), ...certferry, 'run', '-c', config], { PATH })
  const [node = '', ...main] = certferry
  await run(node, [...main, 'wait', '-c', config])
  await using nginx = await startNginx({ port, server: `include ${state}/web/tls.conf;` })
  await writeFile(join(folder, 'nginx.pid'), `${nginx.pid}\n`)
  const { stdout } = await run(node, [...main, 'rotate', 'web', '--wait', '-c', config])
  assert.match(stdout, /^✓ web {2}rotated, serial/)
  assert.match(await readFile(`/proc/${sidecar.child.pid}/status`, 'utf8'), /^CapEff:\t0+20$/m)
  sidecar.child.kill('SIGTERM')
  assert.equal(await sidecar.ended, 0, sidecar.output())
})
