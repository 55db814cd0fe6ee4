import { type BigIntStats, constants } from 'node:fs'
import { systemCode } from '../errors.ts'
import { readAcl } from './acl.ts'
import { diskError } from './disk-error.ts'
import { type FileSystem, fileSystemAt, onThreads } from './file-system.ts'

/** What stands at a name, itself and not where it points to. */
export interface Entry {
  readonly type: 'file' | 'link' | 'directory' | 'other'
  /** Permission bits. */
  readonly mode: number
  readonly uid: number
  readonly gid: number
  readonly size: number
  /** Number of hard links. */
  readonly links: number
  readonly dev: bigint
  readonly ino: bigint
  /** When data or inode changed last, ms since 1970; cannot be set by anybody. */
  readonly changedAt: number
  /** Differs whenever the file may differ. */
  readonly signature: string
}

/**
 * A directory held by an open descriptor: all names are resolved in it even if its path is renamed, or replaced by a link, meanwhile.
 * On Linux calls go through `/proc/self/fd/N/name`, which is what openat is elsewhere; on other systems through the path.
 * Names are single segments; symbolic links are never followed. Errors: `diskError` names the call and the path.
 */
export interface PinnedDir extends AsyncDisposable {
  readonly path: string
  /** The directory itself, as it is now. */
  self(): Promise<Entry>
  list(): Promise<string[]>
  /** undefined where there is nothing. */
  look(name: string): Promise<Entry | undefined>
  /** Target of a symbolic link; undefined where there is none. */
  readLink(name: string): Promise<string | undefined>
  /** Content of a regular file of at most 1 MiB; undefined where there is none. */
  readFile(name: string): Promise<Buffer | undefined>
  /** ACL of a regular file as numbers; undefined where there is none. Throws ACL_DENIED. */
  readAcl(name: string): Promise<string[] | undefined>
  /** A new file, 0600, open for reading and writing. Throws where something stands at the name. */
  create(name: string): Promise<OpenFile>
  makeDirectory(name: string): Promise<void>
  /** A directory in this one. Close it after use. */
  open(name: string): Promise<PinnedDir>
  makeLink(target: string, name: string): Promise<void>
  /** Atomic; replaces what stands at `to`, except a directory. */
  rename(from: string, to: string): Promise<void>
  /** Nothing there is fine. */
  remove(name: string): Promise<void>
  removeDirectory(name: string): Promise<void>
  setMode(mode: number): Promise<void>
  /** Makes names durable: what was created, renamed and removed here survives a power loss. */
  sync(): Promise<void>
  /** Free for this user; `inodes` is undefined where the file system has no such limit. */
  space(): Promise<{ readonly bytes: number; readonly inodes: number | undefined }>
}

/** A regular file, open for reading and writing. Errors are Node's; close it after use. */
export interface OpenFile {
  readonly fd: number
  stat(): Promise<Pick<Entry, 'mode' | 'uid' | 'gid' | 'size'>>
  setOwner(uid: number, gid: number): Promise<void>
  setMode(mode: number): Promise<void>
  /** Bytes of `content` from `offset` on, to the same place in the file; resolves with how many were taken, which may be too few. */
  write(content: Buffer, offset: number): Promise<number>
  /** From its start; resolves with how many bytes were found. */
  read(into: Buffer): Promise<number>
  sync(): Promise<void>
  close(): Promise<void>
}

const { O_RDONLY, O_RDWR, O_CREAT, O_EXCL, O_DIRECTORY, O_NOFOLLOW, O_NONBLOCK } = constants
const MAX_FILE_BYTES = 1024 * 1024

/** Throws VOLUME_UNAVAILABLE where `path` is missing, or is no directory (nor is a symbolic link to one). */
export async function pinDirectory(path: string): Promise<PinnedDir> {
  const fd = await openDirectory(onThreads, path, path)
  try {
    const byDescriptor = await hasAddress(fd)
    return pinned(path, fd, { fs: await fileSystemAt(byDescriptor ? addressOf(fd) : path), byDescriptor })
  } catch (cause) {
    await onThreads.close(fd)
    throw diskError('look at', path, cause)
  }
}

const openDirectory = (fs: FileSystem, path: string, address: string): Promise<number> =>
  fs.open(address, O_RDONLY | O_DIRECTORY | O_NOFOLLOW).catch((cause) => {
    throw diskError('open directory', path, cause)
  })

const addressOf = (fd: number) => `/proc/self/fd/${fd}`

/** Can a descriptor be used as a path on this system? */
async function hasAddress(fd: number): Promise<boolean> {
  const [own, seen] = await Promise.all([
    onThreads.fstat(fd),
    onThreads.lstat(`${addressOf(fd)}/.`).catch(() => undefined),
  ])
  return seen?.ino === own.ino && seen.dev === own.dev
}

interface Way {
  readonly fs: FileSystem
  readonly byDescriptor: boolean
}

function pinned(path: string, fd: number, way: Way): PinnedDir {
  const { fs } = way
  const base = way.byDescriptor ? addressOf(fd) : path
  const within = (directory: string, name: string) => (name === '' ? directory : `${directory}/${name}`)

  const call = <T>(doing: string, name: string, run: (address: string) => Promise<T>): Promise<T> =>
    run(within(base, name)).catch((cause) => {
      throw diskError(doing, within(path, name), cause)
    })

  return {
    path,
    self: async () => entryOf(await call('look at', '', () => fs.fstat(fd))),
    list: () => call('list', '', (at) => fs.readdir(at)),
    look: async (name) => {
      const stat = await call('look at', name, (at) => unless('ENOENT', fs.lstat(at)))
      return stat && entryOf(stat)
    },
    readLink: (name) => call('read link', name, (at) => unless('ENOENT', unless('EINVAL', fs.readlink(at)))),
    readFile: (name) => call('read', name, (at) => readRegular(fs, at)),
    readAcl: (name) => call('read the ACL of', name, (at) => aclOf(fs, at, within(path, name))),
    create: async (name) =>
      openFile(fs, await call('create', name, (at) => fs.open(at, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW, 0o600))),
    makeDirectory: (name) => call('make directory', name, (at) => fs.mkdir(at, 0o700)),
    open: async (name) => {
      const inner = within(path, name)
      return pinned(inner, await openDirectory(fs, inner, within(base, name)), way)
    },
    makeLink: (target, name) => call('make link', name, (at) => fs.symlink(target, at)),
    rename: (from, to) => call('rename to', to, (at) => fs.rename(within(base, from), at)),
    remove: (name) => call('remove', name, (at) => unless('ENOENT', fs.unlink(at))),
    removeDirectory: (name) => call('remove directory', name, (at) => unless('ENOENT', fs.rmdir(at))),
    setMode: (mode) => call('change the mode of', '', () => fs.fchmod(fd, mode)),
    sync: () => call('sync', '', () => fs.fsync(fd)),
    space: async () => {
      const { bavail, bsize, files, ffree } = await call('ask the free space of', '', (at) => fs.statfs(at))
      return { bytes: bavail * bsize, inodes: files > 0 ? ffree : undefined }
    },
    [Symbol.asyncDispose]: closing(fs, fd),
  }
}

const openFile = (fs: FileSystem, fd: number): OpenFile => ({
  fd,
  stat: async () => entryOf(await fs.fstat(fd)),
  setOwner: (uid, gid) => fs.fchown(fd, uid, gid),
  setMode: (mode) => fs.fchmod(fd, mode),
  write: (content, offset) => fs.write(fd, content, offset),
  read: (into) => fs.read(fd, into),
  sync: () => fs.fsync(fd),
  close: closing(fs, fd),
})

/** Once only: the number may be that of another file by then. */
function closing(fs: FileSystem, fd: number): () => Promise<void> {
  let isOpen = true
  return async () => {
    if (!isOpen) return
    isOpen = false
    await fs.close(fd)
  }
}

async function aclOf(fs: FileSystem, address: string, path: string): Promise<string[] | undefined> {
  const fd = await unless('ENOENT', unless('ELOOP', fs.open(address, O_RDONLY | O_NOFOLLOW | O_NONBLOCK)))
  if (fd === undefined) return undefined
  try {
    return await readAcl(fd, path)
  } finally {
    await fs.close(fd)
  }
}

/** O_NONBLOCK: opening a FIFO that somebody planted must not wait for its writer. */
async function readRegular(fs: FileSystem, address: string): Promise<Buffer | undefined> {
  const fd = await unless('ENOENT', unless('ELOOP', fs.open(address, O_RDONLY | O_NOFOLLOW | O_NONBLOCK)))
  if (fd === undefined) return undefined
  try {
    const stat = await fs.fstat(fd)
    if (!stat.isFile() || stat.size > MAX_FILE_BYTES) return undefined
    const content = Buffer.alloc(Number(stat.size))
    return content.subarray(0, await fs.read(fd, content))
  } finally {
    await fs.close(fd)
  }
}

const unless = <T>(code: string, work: Promise<T>): Promise<T | undefined> =>
  work.catch((error) => {
    if (systemCode(error) === code) return undefined
    throw error
  })

function entryOf(stat: BigIntStats): Entry {
  return {
    type: stat.isFile() ? 'file' : stat.isSymbolicLink() ? 'link' : stat.isDirectory() ? 'directory' : 'other',
    mode: Number(stat.mode & 0o7777n),
    uid: Number(stat.uid),
    gid: Number(stat.gid),
    size: Number(stat.size),
    links: Number(stat.nlink),
    dev: stat.dev,
    ino: stat.ino,
    changedAt: Number(stat.ctimeMs),
    signature: [stat.ino, stat.mode, stat.nlink, stat.uid, stat.gid, stat.size, stat.mtimeNs, stat.ctimeNs].join(':'),
  }
}
