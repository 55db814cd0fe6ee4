import { closeSync, constants, fstatSync, openSync, readSync } from 'node:fs'

const LIMIT_BYTES = 1024 * 1024

/**
 * The content of a file that a config names. Never waits and never reads without end: a FIFO, a device or a file beyond
 * `limit` bytes is an error like a missing one, with its reason as `code`.
 */
export function readPlainFile(path: string, limit = LIMIT_BYTES): Buffer {
  const fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK)
  try {
    if (!fstatSync(fd).isFile()) throw refusal(path, fstatSync(fd).isDirectory() ? 'EISDIR' : 'not a regular file')
    const buffer = Buffer.alloc(limit + 1)
    let length = 0
    for (let read = -1; read !== 0 && length <= limit; length += read)
      read = readSync(fd, buffer, length, limit + 1 - length, null)
    if (length > limit) throw refusal(path, `larger than ${limit} bytes`)
    return Buffer.from(buffer.subarray(0, length))
  } finally {
    closeSync(fd)
  }
}

const refusal = (path: string, code: string) => Object.assign(new Error(`${path}: ${code}`), { code })
