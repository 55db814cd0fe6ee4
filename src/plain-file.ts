import { closeSync, constants, fstatSync, openSync, readSync } from 'node:fs'

const LIMIT_BYTES = 1024 * 1024
/** Some files, such as those of /proc, do not say how large they are. */
const MIN_BYTES = 4095

/**
 * The content of a file that a config names. Never waits and never reads without end: a FIFO, a device or a file beyond
 * `limit` bytes is an error like a missing one, with its reason as `code`.
 */
export function readPlainFile(path: string, limit = LIMIT_BYTES): Buffer {
  const fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK)
  try {
    const found = fstatSync(fd)
    if (!found.isFile()) throw refusal(path, found.isDirectory() ? 'EISDIR' : 'not a regular file')
    // One byte more than there should be, to see the end of it.
    let buffer = Buffer.alloc(Math.min(Math.max(found.size, MIN_BYTES), limit) + 1)
    for (let length = 0; ; ) {
      const read = readSync(fd, buffer, length, buffer.length - length, null)
      if (read === 0) return buffer.subarray(0, length)
      length += read
      if (length > limit) throw refusal(path, `larger than ${limit} bytes`)
      if (length === buffer.length) buffer = Buffer.concat([buffer], Math.min(2 * length, limit + 1))
    }
  } finally {
    closeSync(fd)
  }
}

const refusal = (path: string, code: string) => Object.assign(new Error(`${path}: ${code}`), { code })
