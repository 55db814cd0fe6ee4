import { execFile, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import * as fs from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { isCi } from './components.ts'

/** Why mounts of our own cannot be had, for `skip`; told loudly, and an error with CI set. */
export function mountsReason(): false | string {
  const { status, stderr, error } = spawnSync('unshare', ['-Urm', 'true'], { encoding: 'utf8' })
  if (status === 0) return false
  const reason = `no mount namespaces here (unshare -Urm: ${error?.message ?? stderr.trim()}); they need an unprivileged user namespace or root`
  if (isCi()) throw new Error(reason)
  console.error(`SKIPPED: ${reason}`)
  return reason
}

/** A file system in memory, with limits. It is mounted in a namespace of its own, and goes with it, however the tests end. */
export interface Tmpfs extends AsyncDisposable {
  /** Its top, where every process of ours finds it: through the root of a process that lives in that namespace. */
  readonly path: string
  /** A path below `path` as it is called within the namespace. */
  inside(path: string): string
  /** What to put before a command that is to live in the namespace, and to see its mounts. */
  readonly enter: readonly string[]
  /** Runs a shell script in the namespace; `$1` is the top. */
  run(script: string): Promise<void>
  remount(options: string): Promise<void>
  /** Takes it away under whoever uses it; what is left in its place cannot be written to. */
  unmount(): Promise<void>
}

export interface TmpfsOptions {
  /** As mount takes it, such as `256k`. */
  readonly size?: string
  readonly inodes?: number
}

export async function mountTmpfs({ size = '16m', inodes = 4096 }: TmpfsOptions = {}): Promise<Tmpfs> {
  const folder = fs.mkdtempSync(join(tmpdir(), 'certferry-tmpfs-'))
  const top = join(folder, 'volume')
  const script = `mount -t tmpfs -o size=64k,mode=0755 tmpfs "$1" && mkdir "$2" && mount -o remount,ro "$1" &&
    mount -t tmpfs -o size=${size},nr_inodes=${inodes},mode=0755 tmpfs "$2" && echo mounted && exec cat`
  // It ends with us, as its standard input does.
  const holder = spawn('unshare', ['-Urm', 'sh', '-c', script, 'sh', folder, top], {
    stdio: ['pipe', 'pipe', 'inherit'],
  })
  const remove = () => fs.rmSync(folder, { recursive: true, force: true })
  process.once('exit', remove)
  const ended = once(holder, 'close')
  const [ready] = await Promise.race([once(holder.stdout, 'data'), ended])
  if (String(ready) !== 'mounted\n') throw new Error(`no tmpfs could be mounted: unshare ended with ${ready}`)
  const enter = ['nsenter', '-t', `${holder.pid}`, '-U', '-m', '--preserve-credentials', '--']
  const run: Tmpfs['run'] = async (script) => {
    const [command = '', ...args] = enter
    await promisify(execFile)(command, [...args, 'sh', '-ec', script, 'sh', top])
  }
  const root = `/proc/${holder.pid}/root`
  return {
    path: `${root}${top}`,
    inside: (path) => path.slice(root.length),
    enter,
    run,
    remount: (options) => run(`mount -o remount,${options} "$1"`),
    unmount: () => run('umount -l "$1"'),
    [Symbol.asyncDispose]: async () => {
      holder.stdin.end()
      await ended
      process.removeListener('exit', remove)
      remove()
    },
  }
}

/** Writes until nothing more goes in, but for so many pages; gives back how to make room again. */
export function fill(path: string, { pagesLeft = 0 } = {}): () => void {
  const page = Buffer.alloc(4096, 'x')
  const file = join(path, 'filling')
  const fd = fs.openSync(file, 'wx', 0o600)
  try {
    for (;;) fs.writeSync(fd, page)
  } catch (error) {
    if (!(error instanceof Error && error.message.includes('ENOSPC'))) throw error
    fs.ftruncateSync(fd, Math.max(fs.fstatSync(fd).size - pagesLeft * page.length, 0))
  } finally {
    fs.closeSync(fd)
  }
  return () => fs.rmSync(file)
}

/** Makes empty files until there is no inode left; gives back how to have them again. */
export function fillInodes(path: string): () => void {
  const folder = join(path, 'filling')
  fs.mkdirSync(folder)
  try {
    for (let count = 0; ; count += 1) fs.writeFileSync(join(folder, `${count}`), '')
  } catch (error) {
    if (!(error instanceof Error && error.message.includes('ENOSPC'))) throw error
  }
  return () => fs.rmSync(folder, { recursive: true })
}
