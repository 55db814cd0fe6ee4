import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { rmSync } from 'node:fs'
import { chmod, mkdir, mkdtemp, readFile } from 'node:fs/promises'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'
import * as z from 'zod'
import { isCi } from './components.ts'
import type { TestKubernetes } from './kubernetes.ts'
import { fieldOf, makeVolume, PodVolume, writePayload } from './pod-volumes.ts'
import { until } from './until.ts'

const Env = z.strictObject({
  name: z.string(),
  value: z.string().optional(),
  valueFrom: z.strictObject({ fieldRef: z.object({ fieldPath: z.string() }) }).optional(),
})

const Probe = z.looseObject({
  httpGet: z.object({ path: z.string(), port: z.int(), scheme: z.string().default('HTTP') }).optional(),
  tcpSocket: z.object({ port: z.int() }).optional(),
  exec: z.object({ command: z.array(z.string()) }).optional(),
  initialDelaySeconds: z.int().default(0),
  periodSeconds: z.int().default(10),
  failureThreshold: z.int().default(3),
})
type Probe = z.output<typeof Probe>

const Identity = {
  runAsUser: z.int().optional(),
  runAsGroup: z.int().optional(),
  runAsNonRoot: z.boolean().optional(),
}

const Container = z.looseObject({
  name: z.string(),
  image: z.string(),
  command: z.array(z.string()).optional(),
  args: z.array(z.string()).optional(),
  workingDir: z.string().default('/'),
  env: z.array(Env).default([]),
  restartPolicy: z.string().optional(),
  startupProbe: Probe.optional(),
  securityContext: z
    .looseObject({
      ...Identity,
      readOnlyRootFilesystem: z.boolean().default(false),
      allowPrivilegeEscalation: z.boolean().default(true),
      capabilities: z.object({ drop: z.array(z.string()).default([]), add: z.array(z.string()).default([]) }).default({
        drop: [],
        add: [],
      }),
    })
    .prefault({}),
  volumeMounts: z
    .array(z.strictObject({ name: z.string(), mountPath: z.string(), readOnly: z.boolean().default(false) }))
    .default([]),
  // What the runner does not do must not be asked for.
  lifecycle: z.undefined().optional(),
  envFrom: z.undefined().optional(),
})
type Container = z.output<typeof Container>

/** What the runner reads of a pod as the API server shows it. */
export const AdmittedPod = z.looseObject({
  metadata: z.looseObject({
    name: z.string(),
    namespace: z.string(),
    uid: z.string(),
    annotations: z.record(z.string(), z.string()).default({}),
    labels: z.record(z.string(), z.string()).default({}),
  }),
  spec: z.looseObject({
    initContainers: z.array(Container).default([]),
    containers: z.array(Container).min(1),
    volumes: z.array(PodVolume).default([]),
    restartPolicy: z.string().default('Always'),
    serviceAccountName: z.string().optional(),
    shareProcessNamespace: z.boolean().default(false),
    terminationGracePeriodSeconds: z.int().default(30),
    securityContext: z
      .looseObject({
        ...Identity,
        fsGroup: z.int().optional(),
        supplementalGroups: z.array(z.int()).default([]),
      })
      .prefault({}),
  }),
})
export type AdmittedPod = z.output<typeof AdmittedPod>

/** What stands for an image. */
export interface TestImage {
  /** What it runs where the container names no command. */
  readonly entrypoint?: readonly string[]
  /** Arguments of it, where the container names none. */
  readonly cmd?: readonly string[]
  /** Whom it runs as where nothing says otherwise; root unless given. */
  readonly user?: number
  readonly env?: Readonly<Record<string, string>>
  /** Folders of this machine by their paths in the image, besides /usr and /lib. */
  readonly folders?: Readonly<Record<string, string>>
}

export interface RunOptions {
  /** JSON as read back from the API server. */
  readonly pod: unknown
  readonly cluster: TestKubernetes
  /** By the name that the pod gives it. */
  readonly images: Readonly<Record<string, TestImage>>
}

/** Exit status; the name of the signal where one ended it. */
export type Exit = number | string

export interface PodContainer {
  readonly name: string
  /** Of its main process, as this machine numbers it. */
  readonly pid: number
  /** Standard output and error so far. */
  log(): string
  readonly ended: Promise<Exit>
}

export interface RunningPod extends AsyncDisposable {
  /** One that has been started. */
  container(name: string): PodContainer
  /** What happened, in order, such as `certferry started`, `certferry is up`, `web ended 0`, `certferry told SIGTERM`. */
  history(): readonly string[]
  /** As `kubectl exec`: standard output of a command in a running container. Throws with its output where it fails. */
  exec(name: string, command: readonly string[]): Promise<string>
  /** Reads pod, ConfigMaps and Secrets again and puts them into the volumes, with new tokens, as the kubelet does every minute or so. */
  refreshVolumes(): Promise<void>
  /** Of a pod that ends by itself: resolves with its phase, which the API server is told too. */
  readonly finished: Promise<'Succeeded' | 'Failed'>
  /** Ends it as the kubelet does when it is deleted: the containers first, then the sidecars, the last one first. */
  stop(): Promise<void>
}

/** Why pods cannot be run here, for `skip`; told loudly, and an error with CI set. */
export function podsReason(): false | string {
  if (process.platform === 'linux' && process.getuid?.() === 0) return false
  const reason = 'running pods takes root on Linux, for namespaces, mounts and other users'
  if (isCi()) throw new Error(reason)
  console.error(`SKIPPED: ${reason}`)
  return reason
}

/**
 * Runs a pod that the API server has admitted, as a kubelet would: init containers in their order, sidecars (init containers that stay) up to
 * their startup probe before what follows, containers as processes of their user with mounts of their own on a root of their own, in process
 * namespaces of their own or a shared one. Resolves once all containers have been started.
 * Unlike a kubelet: the network is that of this machine, so ports must be free ones; nothing is started anew; there are no limits of CPU and
 * memory, no seccomp profile, and no probes but startup probes. All of it dies with this process.
 */
export async function runPod({ pod: json, cluster, images }: RunOptions): Promise<RunningPod> {
  const pod = AdmittedPod.parse(json)
  const sandbox = await startSandbox()
  const history: string[] = []
  const started: Started[] = []
  try {
    const volumes = await makeVolumes(pod, cluster, sandbox)
    const start = async (container: Container) => {
      const running = await startContainer({ container, pod, cluster, images, sandbox })
      history.push(`${container.name} started`)
      void running.ended.then((exit) => history.push(`${container.name} ended ${exit}`))
      started.push(running)
      return running
    }
    for (const container of pod.spec.initContainers) {
      const running = await start(container)
      if (isSidecar(container)) {
        await untilUp(running, container.startupProbe)
        history.push(`${container.name} is up`)
        continue
      }
      const exit = await running.ended
      if (exit !== 0) throw new Error(`init container ${container.name} ended with ${exit}:\n${running.log()}`)
    }
    for (const container of pod.spec.containers) await start(container)
    return control({ pod, cluster, sandbox, history, started, volumes })
  } catch (error) {
    await sandbox.end()
    throw error
  }
}

const isSidecar = ({ restartPolicy }: Container) => restartPolicy === 'Always'

interface Sandbox {
  readonly folder: string
  /** A process in the namespaces of the pod. */
  readonly pid: number
  /** How this process gets at a path that is mounted in the pod's namespace. */
  outside(path: string): string
  /** What to put before a command that is to live in the pod's namespaces of mounts and processes. */
  readonly enter: readonly string[]
  end(): Promise<void>
}

/** What holds the namespaces: a process that ends with us, as its standard input does, and with it all that is in its process namespace. */
async function startSandbox(): Promise<Sandbox> {
  const folder = await mkdtemp(join(tmpdir(), 'certferry-pod-'))
  // Users of the pod walk through it.
  await chmod(folder, 0o755)
  const remove = () => rmSync(folder, { recursive: true, force: true })
  process.once('exit', remove)
  // The shell stays, to collect the processes that lose their parents.
  const unshare = ['--mount', '--pid', '--fork', '--kill-child', 'sh', '-c', 'echo ready; cat; :']
  const holder = spawn('unshare', unshare, { stdio: ['pipe', 'pipe', 'inherit'], env: { PATH } })
  const ended = once(holder, 'close')
  await Promise.race([once(holder.stdout, 'data'), ended])
  const pid = await childOf(holder.pid ?? 0)
  return {
    folder,
    pid,
    outside: (path) => `/proc/${pid}/root${path}`,
    enter: ['nsenter', '-t', `${pid}`, '-m', '-p', '--'],
    end: async () => {
      holder.stdin.end()
      await ended
      process.removeListener('exit', remove)
      remove()
    },
  }
}

const PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'

/** -1 once there is nothing left to have one: a container may be over before it is looked at. */
const childOf = (pid: number, hasEnded = () => false) =>
  until(`process ${pid} has a child`, async () => {
    if (hasEnded()) return -1
    const children = await readFile(`/proc/${pid}/task/${pid}/children`, 'utf8')
    return Number(children.trim().split(' ')[0]) || undefined
  })

type Refresh = (pod: AdmittedPod) => Promise<void>

async function makeVolumes(pod: AdmittedPod, cluster: TestKubernetes, sandbox: Sandbox): Promise<Refresh> {
  const roomOf = async ({ name }: PodVolume) => {
    const inside = join(sandbox.folder, name)
    await mkdir(inside, { recursive: true })
    return { cluster, inside, path: sandbox.outside(inside) }
  }
  for (const volume of pod.spec.volumes) {
    const { inside, ...room } = await roomOf(volume)
    const mountMemory = async (options: string) => {
      const [command = '', ...args] = [...sandbox.enter, 'mount', '-t', 'tmpfs', '-o', options, 'tmpfs', inside]
      await promisify(execFile)(command, args)
    }
    await makeVolume(volume, { ...room, pod, mountMemory })
  }
  return async (now) => {
    const mountMemory = () => Promise.reject(new Error('it is mounted already'))
    for (const volume of now.spec.volumes) {
      const { cluster, path } = await roomOf(volume)
      await writePayload(volume, { cluster, path, pod: now, mountMemory })
    }
  }
}

interface Started extends PodContainer {
  readonly isSidecar: boolean
  /** The command that looks into it. */
  readonly look: readonly string[]
  hasEnded(): boolean
  tell(signal: NodeJS.Signals): void
}

interface ContainerStart {
  readonly container: Container
  readonly pod: AdmittedPod
  readonly cluster: TestKubernetes
  readonly images: RunOptions['images']
  readonly sandbox: Sandbox
}

/**
 * `$1`: the folder to make the root in, `$2`: `ro` for a root that cannot be written to; then SOURCE TARGET ro|rw of each mount, `--`, the command.
 * The root has what programs of this machine need, and nothing else of it. Says `started` on descriptor 3 before the command takes its place.
 */
const CONTAINER = `
root=$1 mode=$2; shift 2
mount -t tmpfs -o size=16m,mode=0755 tmpfs "$root"
cd "$root"
mkdir usr etc proc dev tmp
chmod 1777 tmp
mount --bind /usr usr
mount -o remount,bind,ro usr
for name in bin sbin lib lib32 lib64 libx32; do
  if [ -L "/$name" ]; then cp -P "/$name" "$name"; elif [ -d "/$name" ]; then mkdir "$name"; mount --bind "/$name" "$name"; fi
done
for name in passwd group nsswitch.conf ld.so.cache hosts localtime; do
  if [ -e "/etc/$name" ]; then cp -L "/etc/$name" "etc/$name"; fi
done
mount -t proc proc proc
for name in null zero full random urandom; do : >"dev/$name"; mount --bind "/dev/$name" "dev/$name"; done
ln -s /proc/self/fd dev/fd; ln -s fd/0 dev/stdin; ln -s fd/1 dev/stdout; ln -s fd/2 dev/stderr
while [ "$1" != -- ]; do
  mkdir -p ".$2"
  mount --bind "$1" ".$2"
  if [ "$3" = ro ]; then mount -o remount,bind,ro ".$2"; fi
  shift 3
done
shift
if [ "$mode" = ro ]; then mount -o remount,ro "$root"; fi
echo started >&3
exec 3>&-
exec chroot . "$@"
`

async function startContainer({ container, pod, cluster, images, sandbox }: ContainerStart): Promise<Started> {
  const { name, image: imageName, securityContext } = container
  const image = images[imageName]
  if (image === undefined) throw new Error(`ErrImagePull: nothing stands for image ${imageName} of container ${name}`)
  const root = join(sandbox.folder, `root-${name}`)
  await mkdir(root)
  const isShared = pod.spec.shareProcessNamespace
  const user = userOf(container, pod, image)
  const mode = securityContext.readOnlyRootFilesystem ? 'ro' : 'rw'
  const script = ['sh', '-euc', CONTAINER, name, root, mode, ...mountsOf(container, image, sandbox), '--']
  const [program = '', ...args] = [
    ...sandbox.enter,
    'unshare',
    '--mount',
    ...(isShared ? [] : ['--pid', '--fork', '--kill-child']),
    ...script,
    ...become(container, user),
    'env',
    '-i',
    '-C',
    container.workingDir,
    ...environment({ container, pod, cluster, image }),
    ...commandOf(container, image),
  ]
  const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe', 'pipe'], env: { PATH } })
  const log = logOf(child)
  const ended = once(child, 'close').then(([code, signal]): Exit => code ?? signal)
  const isStarted = await Promise.race([child.stdio[3] && once(child.stdio[3], 'data'), ended.then(() => undefined)])
  if (!isStarted) throw new Error(`container ${name} could not be made: ${await ended}\n${log()}`)
  // nsenter waits for a process in the namespace; without a shared one that is unshare, which waits for the first process of another.
  const hasEnded = () => child.exitCode !== null || child.signalCode !== null
  const first = await childOf(child.pid ?? 0, hasEnded)
  const pid = isShared ? first : await childOf(first, hasEnded)
  return {
    name,
    pid,
    log,
    ended,
    hasEnded,
    isSidecar: isSidecar(container) && pod.spec.initContainers.includes(container),
    look: ['nsenter', '-t', `${pid}`, '-m', '-p', '-r', '--', ...become(container, user), 'env', '-i', `PATH=${PATH}`],
    tell: (signal) => {
      if (!hasEnded()) process.kill(pid, signal)
    },
  }
}

function logOf(child: ChildProcess): () => string {
  let text = ''
  for (const stream of [child.stdout, child.stderr])
    stream?.setEncoding('utf8').on('data', (chunk: string) => (text += chunk))
  return () => text
}

interface User {
  readonly user: number
  readonly group: number
  readonly groups: readonly number[]
}

function userOf({ name, securityContext: own }: Container, { spec }: AdmittedPod, image: TestImage): User {
  const { securityContext: ofPod } = spec
  const user = own.runAsUser ?? ofPod.runAsUser ?? image.user ?? 0
  if (user === 0 && (own.runAsNonRoot ?? ofPod.runAsNonRoot))
    throw new Error(`container ${name}: has runAsNonRoot and would run as root`)
  const groups = [...ofPod.supplementalGroups, ...(ofPod.fsGroup === undefined ? [] : [ofPod.fsGroup])]
  return { user, group: own.runAsGroup ?? ofPod.runAsGroup ?? 0, groups }
}

/** What a container runtime gives where nothing is dropped. */
const CAPABILITIES =
  'chown dac_override fowner fsetid kill setgid setuid setpcap net_bind_service net_raw sys_chroot mknod audit_write setfcap'.split(
    ' ',
  )

function become({ securityContext }: Container, { user, group, groups }: User): string[] {
  const { drop, add } = securityContext.capabilities
  const dropped = drop.map((name) => name.toLowerCase())
  const kept = dropped.includes('all') ? [] : CAPABILITIES.filter((name) => !dropped.includes(name))
  const bounding = [...new Set([...kept, ...add.map((name) => name.toLowerCase())])]
  return [
    'setpriv',
    `--reuid=${user}`,
    `--regid=${group}`,
    groups.length > 0 ? `--groups=${groups.join(',')}` : '--clear-groups',
    `--bounding-set=${['-all', ...bounding.map((name) => `+${name}`)].join(',')}`,
    '--inh-caps=-all',
    '--ambient-caps=-all',
    ...(securityContext.allowPrivilegeEscalation ? [] : ['--no-new-privs']),
  ]
}

/** What is mounted further up comes first. */
function mountsOf({ volumeMounts }: Container, { folders = {} }: TestImage, { folder }: Sandbox): string[] {
  const ofImage = Object.entries(folders).map(([target, source]) => ({ source, target, mode: 'ro' }))
  const ofPod = volumeMounts
    .map(({ name, mountPath, readOnly }) => ({
      source: join(folder, name),
      target: mountPath,
      mode: readOnly ? 'ro' : 'rw',
    }))
    .sort((one, other) => one.target.split('/').length - other.target.split('/').length)
  return [...ofImage, ...ofPod].flatMap(({ source, target, mode }) => [source, target, mode])
}

function environment({
  container,
  pod,
  cluster,
  image,
}: Pick<ContainerStart, 'container' | 'pod' | 'cluster'> & { readonly image: TestImage }): string[] {
  const given = container.env.map(({ name, value = '', valueFrom }) => [
    name,
    valueFrom?.fieldRef ? fieldOf(pod, valueFrom.fieldRef.fieldPath) : value,
  ])
  const all = {
    PATH,
    HOSTNAME: pod.metadata.name,
    KUBERNETES_SERVICE_HOST: '127.0.0.1',
    KUBERNETES_SERVICE_PORT: String(cluster.port),
    ...image.env,
    ...Object.fromEntries(given),
  }
  return Object.entries(all).map(([name, value]) => `${name}=${value}`)
}

/** https://kubernetes.io/docs/tasks/inject-data-application/define-command-argument-container/: a command leaves the image's arguments out too. */
function commandOf({ command, args }: Container, { entrypoint = [], cmd = [] }: TestImage): string[] {
  if (command) return [...command, ...(args ?? [])]
  return [...entrypoint, ...(args ?? cmd)]
}

/** Until its startup probe passes; the kubelet asks every `periodSeconds`, and gives up after so many failures. */
async function untilUp(running: Started, probe: Probe | undefined): Promise<void> {
  if (!probe) return
  const seconds = probe.initialDelaySeconds + probe.periodSeconds * probe.failureThreshold
  const look = async () => {
    if (running.hasEnded()) return 'ended'
    return (await isUp(running, probe)) && 'up'
  }
  const found = await until(`${running.name} passes its startup probe`, look, { timeoutMs: seconds * 1000 }).catch(
    (error: Error) => error.message,
  )
  if (found !== 'up') throw new Error(`${running.name} has not started: ${found}\n${running.log()}`)
}

async function isUp(running: Started, { httpGet, tcpSocket, exec }: Probe): Promise<boolean> {
  if (httpGet) {
    if (httpGet.scheme !== 'HTTP') throw new Error('the pod runner does not know probes over TLS')
    const { status } = await fetch(`http://127.0.0.1:${httpGet.port}${httpGet.path}`)
    return status >= 200 && status < 400
  }
  if (tcpSocket) {
    const socket = connect(tcpSocket.port, '127.0.0.1')
    await once(socket, 'connect').finally(() => socket.destroy())
    return true
  }
  await execIn(running, exec?.command ?? [])
  return true
}

async function execIn({ look }: Started, command: readonly string[]): Promise<string> {
  const [program = '', ...args] = [...look, ...command]
  return (await promisify(execFile)(program, args, { env: { PATH } })).stdout
}

interface Control {
  readonly pod: AdmittedPod
  readonly cluster: TestKubernetes
  readonly sandbox: Sandbox
  readonly history: string[]
  readonly started: readonly Started[]
  readonly volumes: Refresh
}

function control({ pod, cluster, sandbox, history, started, volumes }: Control): RunningPod {
  const find = (name: string) => {
    const found = started.find((each) => each.name === name)
    if (!found) throw new Error(`container ${name} was not started; ${history.join(', ')}`)
    return found
  }
  const path = `/api/v1/namespaces/${pod.metadata.namespace}/pods/${pod.metadata.name}`
  const sidecars = started.filter((each) => each.isSidecar).reverse()
  const names = new Set(pod.spec.containers.map(({ name }) => name))
  const apps = started.filter((each) => names.has(each.name))
  const end = async (running: Started) => {
    if (running.hasEnded()) return
    history.push(`${running.name} told SIGTERM`)
    running.tell('SIGTERM')
    const late = sleep(pod.spec.terminationGracePeriodSeconds * 1000, 'late', { ref: false })
    if ((await Promise.race([running.ended, late])) !== 'late') return
    history.push(`${running.name} told SIGKILL`)
    running.tell('SIGKILL')
    await running.ended
  }
  const endSidecars = async () => {
    for (const sidecar of sidecars) await end(sidecar)
  }
  const finish = async () => {
    const exits = await Promise.all(apps.map(({ ended }) => ended))
    await endSidecars()
    const phase = exits.every((exit) => exit === 0) ? 'Succeeded' : 'Failed'
    // It may have been deleted meanwhile.
    await cluster.send('PATCH', `${path}/status`, { status: { phase } })
    return phase
  }
  // One that is always started anew ends by nothing but `stop`.
  const finished: RunningPod['finished'] = pod.spec.restartPolicy === 'Always' ? new Promise(() => {}) : finish()
  finished.catch(() => {})
  return {
    container: find,
    history: () => history,
    exec: (name, command) => execIn(find(name), command),
    refreshVolumes: async () => volumes(AdmittedPod.parse(await cluster.api('GET', path))),
    finished,
    stop: async () => {
      await Promise.all(apps.map(end))
      await endSidecars()
    },
    [Symbol.asyncDispose]: () => sandbox.end(),
  }
}
