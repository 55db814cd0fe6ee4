import * as fs from 'node:fs'

/** The system calls that a set is written with, by path and by descriptor. Errors are Node's. */
export interface FileSystem {
  open(path: string, flags: number, mode?: number): Promise<number>
  lstat(path: string): Promise<fs.BigIntStats>
  readdir(path: string): Promise<string[]>
  readlink(path: string): Promise<string>
  mkdir(path: string, mode: number): Promise<void>
  /** With all above it that is missing. */
  makePath(path: string): Promise<void>
  symlink(target: string, path: string): Promise<void>
  rename(from: string, to: string): Promise<void>
  unlink(path: string): Promise<void>
  rmdir(path: string): Promise<void>
  statfs(path: string): Promise<fs.StatsFs>
  fstat(fd: number): Promise<fs.BigIntStats>
  fchown(fd: number, uid: number, gid: number): Promise<void>
  fchmod(fd: number, mode: number): Promise<void>
  fsync(fd: number): Promise<void>
  /** Bytes from `offset` on, to the same place in the file; resolves with how many were taken. */
  write(fd: number, content: Buffer, offset: number): Promise<number>
  /** From the start of the file; resolves with how many bytes were found. */
  read(fd: number, into: Buffer): Promise<number>
  close(fd: number): Promise<void>
}

/** On threads, since a disk or a server far away may take its time: the event loop goes on meanwhile. */
export const onThreads: FileSystem = {
  open: (path, flags, mode) => called((done) => fs.open(path, flags, mode, done)),
  lstat: (path) => called((done) => fs.lstat(path, { bigint: true }, done)),
  readdir: (path) => called((done) => fs.readdir(path, done)),
  readlink: (path) => called((done) => fs.readlink(path, done)),
  mkdir: (path, mode) => called((done) => fs.mkdir(path, mode, (error) => done(error, undefined))),
  makePath: (path) => called((done) => fs.mkdir(path, { recursive: true }, (error) => done(error, undefined))),
  symlink: (target, path) => called((done) => fs.symlink(target, path, (error) => done(error, undefined))),
  rename: (from, to) => called((done) => fs.rename(from, to, (error) => done(error, undefined))),
  unlink: (path) => called((done) => fs.unlink(path, (error) => done(error, undefined))),
  rmdir: (path) => called((done) => fs.rmdir(path, (error) => done(error, undefined))),
  statfs: (path) => called((done) => fs.statfs(path, done)),
  fstat: (fd) => called((done) => fs.fstat(fd, { bigint: true }, done)),
  fchown: (fd, uid, gid) => called((done) => fs.fchown(fd, uid, gid, (error) => done(error, undefined))),
  fchmod: (fd, mode) => called((done) => fs.fchmod(fd, mode, (error) => done(error, undefined))),
  fsync: (fd) => called((done) => fs.fsync(fd, (error) => done(error, undefined))),
  write: (fd, content, offset) =>
    called((done) =>
      fs.write(fd, content, offset, content.length - offset, offset, (error, count) => done(error, count)),
    ),
  read: (fd, into) => called((done) => fs.read(fd, into, 0, into.length, 0, (error, count) => done(error, count))),
  close: (fd) => called((done) => fs.close(fd, (error) => done(error ?? null, undefined))),
}

/**
 * At once, for a file system in memory: there is nothing to wait for, and a call that takes two microseconds takes fifty by way of a
 * thread. A set takes a hundred calls, so this is most of what a delivery costs (docs/performance.md).
 */
const atOnce: FileSystem = {
  open: async (path, flags, mode) => fs.openSync(path, flags, mode),
  lstat: async (path) => fs.lstatSync(path, { bigint: true }),
  readdir: async (path) => fs.readdirSync(path),
  readlink: async (path) => fs.readlinkSync(path),
  mkdir: async (path, mode) => void fs.mkdirSync(path, mode),
  makePath: async (path) => void fs.mkdirSync(path, { recursive: true }),
  symlink: async (target, path) => fs.symlinkSync(target, path),
  rename: async (from, to) => fs.renameSync(from, to),
  unlink: async (path) => fs.unlinkSync(path),
  rmdir: async (path) => fs.rmdirSync(path),
  statfs: async (path) => fs.statfsSync(path),
  fstat: async (fd) => fs.fstatSync(fd, { bigint: true }),
  fchown: async (fd, uid, gid) => fs.fchownSync(fd, uid, gid),
  fchmod: async (fd, mode) => fs.fchmodSync(fd, mode),
  fsync: async (fd) => {
    fs.fsyncSync(fd)
    // Here, between two steps of a set, everything else gets its turn: many sets must not keep the event loop to themselves.
    await new Promise((resolve) => setImmediate(resolve))
  },
  write: async (fd, content, offset) => fs.writeSync(fd, content, offset, content.length - offset, offset),
  read: async (fd, into) => fs.readSync(fd, into, 0, into.length, 0),
  close: async (fd) => fs.closeSync(fd),
}

/** statfs(2): tmpfs and ramfs, which hold memory-backed volumes. */
const IN_MEMORY: readonly number[] = [0x01021994, 0x858458f6]

/** The way to reach what is at `path`: at once where that is in memory for certain. */
export async function fileSystemAt(path: string): Promise<FileSystem> {
  const type = await onThreads.statfs(path).then(
    (found) => found.type,
    () => undefined,
  )
  return type !== undefined && IN_MEMORY.includes(type) ? atOnce : onThreads
}

/** node:fs/promises does the same, by way of a FileHandle, at twice the cost. */
function called<T>(call: (done: (error: NodeJS.ErrnoException | null, result: T) => void) => void): Promise<T> {
  return new Promise((resolve, reject) => {
    call((error, result) => (error ? reject(error) : resolve(result)))
  })
}
