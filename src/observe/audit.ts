import { closeSync, constants, createReadStream, fchmodSync, fstatSync, openSync, readSync, writeSync } from 'node:fs'
import { SidecarError, systemCode } from '../errors.ts'
import { createChainReader, type Head, link, RESUMED, readLine, START, tornHash } from './audit-chain.ts'
import { type Emit, EVENTS, type Observer } from './events.ts'
import { fieldsOf, isoTime, type Plain } from './fields.ts'

export interface AuditDeps {
  /** Wall clock, ms. */
  readonly now: () => number
  /** Told once when writing fails (`audit.failed`), and once when it works again. */
  readonly emit: Emit
}

export interface Audit extends Disposable {
  /** Writes a line for each event that `EVENTS` marks for the audit log, before it returns. Never throws. */
  readonly observe: Observer
  /** Lines that could not be written. */
  readonly lost: number
}

/**
 * An append-only file (0600) of JSON lines, each with the hash of the one before it. The chain goes on over restarts; a line cut
 * off by a crash is named by the next. Throws VOLUME_UNAVAILABLE or FOREIGN_OBJECT when the file cannot be opened as an audit log.
 */
export function openAudit(file: string, { now, emit }: AuditDeps): Audit {
  const fd = openFile(file)
  let head = START
  /** Size after our last write; any other size means that lines were added, removed or torn, and the end is read again. */
  let expectedSize: number | undefined
  let lost = 0
  let untold = 0

  /** 1. Look at the end where it is not as we left it. 2. Own up to what is torn or lost. 3. Append, as one write. */
  const append = (fields: Readonly<Record<string, Plain>>) => {
    const { size } = fstatSync(fd)
    const tail = size === expectedSize ? undefined : readTail(fd, size)
    // A file that shrank goes on from what we know, so that verification finds the gap.
    if (tail && size > (expectedSize ?? -1)) head = tail.head
    expectedSize = undefined
    const torn = tail && tail.remains.length > 0 ? tornHash(tail.remains) : undefined
    const time = isoTime(now())
    const lines = [
      ...(tail?.remains.length || untold > 0
        ? [{ time, event: RESUMED, lost: untold, ...(torn === undefined ? {} : { torn }) }]
        : []),
      { time, ...fields },
    ]
    let text = tail?.isCut ? '\n' : ''
    for (const line of lines) {
      const next = link(head, line)
      text += next.text
      head = next.head
    }
    expectedSize = size + writeAll(fd, Buffer.from(text))
  }
  const fail = (error: unknown) => {
    lost += 1
    untold += 1
    if (untold > 1) return
    const code = ['ENOSPC', 'EDQUOT'].includes(systemCode(error) ?? '') ? 'DISK_FULL' : 'WRITE_FAILED'
    emit('audit.failed', { file, code, message: `writing to ${file} failed: ${systemCode(error) ?? String(error)}` })
  }

  let isOpen = true
  return {
    observe(name, event) {
      if (!isOpen || !EVENTS[name].audit) return
      try {
        append({ event: name, ...fieldsOf(event) })
      } catch (error) {
        return fail(error)
      }
      if (untold > 0) emit('audit.recovered', { file, lost: untold })
      untold = 0
    },
    get lost() {
      return lost
    },
    [Symbol.dispose]() {
      if (isOpen) closeSync(fd)
      isOpen = false
    },
  }
}

/** What `certferry audit verify` tells. */
export interface AuditSummary {
  readonly lines: number
  /** Hash of the last line. Kept elsewhere, it shows later that the end of the file was not cut off. */
  readonly head: string
  /** The last line was cut off by a crash, and nothing was written since. */
  readonly torn: boolean
}

/** Follows the chain through the whole file. Throws AUDIT_BROKEN naming the first line that does not fit, CONFIG_UNREADABLE when it cannot be read. */
export async function verifyAudit(file: string): Promise<AuditSummary> {
  const chain = createChainReader(file)
  let rest = ''
  try {
    for await (const chunk of createReadStream(file, 'latin1')) {
      const lines = `${rest}${chunk}`.split('\n')
      rest = lines.pop() ?? ''
      for (const line of lines) chain.next(line)
    }
  } catch (cause) {
    if (cause instanceof SidecarError) throw cause
    throw new SidecarError('CONFIG_UNREADABLE', `${file} cannot be read: ${systemCode(cause) ?? String(cause)}`, {
      cause,
    })
  }
  const { seq, hash, torn } = chain.end(rest)
  return { lines: seq, head: hash, torn }
}

function openFile(file: string): number {
  const { O_RDWR, O_APPEND, O_CREAT, O_NOFOLLOW, O_NONBLOCK } = constants
  let fd: number
  try {
    fd = openSync(file, O_RDWR | O_APPEND | O_CREAT | O_NOFOLLOW | O_NONBLOCK, 0o600)
  } catch (cause) {
    const code = systemCode(cause)
    if (code === 'ELOOP') throw foreign(file, 'is a symbolic link')
    throw new SidecarError('VOLUME_UNAVAILABLE', `the audit log ${file} cannot be opened: ${code}`, { cause })
  }
  try {
    const stat = fstatSync(fd)
    if (!stat.isFile()) throw foreign(file, 'is no regular file')
    if ((stat.mode & 0o077) !== 0) fchmodSync(fd, 0o600)
    const { head, remains } = readTail(fd, stat.size)
    if (head === START && remains.length > 0 && !isFirstLine(remains)) throw foreign(file, 'holds something else')
    return fd
  } catch (error) {
    closeSync(fd)
    if (error instanceof SidecarError) throw error
    throw new SidecarError('VOLUME_UNAVAILABLE', `the audit log ${file} cannot be used: ${systemCode(error)}`, {
      cause: error,
    })
  }
}

const foreign = (file: string, what: string) =>
  new SidecarError('FOREIGN_OBJECT', `${file}, given as the audit log, ${what}`)

/** A first line that was cut off, however early. */
const isFirstLine = ([text = '']: readonly string[]) => '{"seq":1,'.startsWith(text.slice(0, 9))

interface Tail {
  readonly head: Head
  /** Lines after it that are not whole. */
  readonly remains: readonly string[]
  /** The file does not end with a newline. */
  readonly isCut: boolean
}

const MAX_TAIL = 16 * 1024 * 1024

/** The last whole line, looked for from the end. */
function readTail(fd: number, size: number, window = 64 * 1024): Tail {
  const start = Math.max(size - window, 0)
  const lines = readRange(fd, start, size).split('\n')
  const isCut = lines.at(-1) !== ''
  if (!isCut) lines.pop()
  const last = lines.findLastIndex((text) => readLine(text) !== undefined)
  if (last < 0 && start > 0 && window < MAX_TAIL) return readTail(fd, size, window * 4)
  const line = readLine(lines[last] ?? '')
  return { head: line ? { seq: line.seq, hash: line.hash } : START, remains: lines.slice(last + 1), isCut }
}

function readRange(fd: number, start: number, end: number): string {
  const buffer = Buffer.alloc(end - start)
  let read = 0
  for (;;) {
    const count = readSync(fd, buffer, read, buffer.length - read, start + read)
    read += count
    if (count === 0 || read === buffer.length) return buffer.toString('latin1', 0, read)
  }
}

/** A single write may be cut short by a full disk; the number of bytes is what a caller must check, and so does this. */
function writeAll(fd: number, bytes: Buffer): number {
  let written = 0
  while (written < bytes.length) written += writeSync(fd, bytes, written)
  return bytes.length
}
