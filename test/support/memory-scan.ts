import { createPrivateKey } from 'node:crypto'
import { closeSync, openSync, readFileSync, readSync } from 'node:fs'

/** How often each needle was found, by its name, and in how many bytes. */
export interface Found {
  readonly bytes: number
  readonly counts: Readonly<Record<string, number>>
}

export type Needles = Readonly<Record<string, readonly Buffer[]>>

const CHUNK = 16 * 1024 * 1024
/** Longer than any needle. */
const OVERLAP = 4096

/** Why the memory of a child cannot be read here; false where it can. */
export function cannotScan(pid: number): false | string {
  try {
    closeSync(openSync(`/proc/${pid}/mem`, 'r'))
    return false
  } catch (error) {
    return `the memory of another process cannot be read here: ${error}`
  }
}

/** Looks through the memory of a process, as a debugger would (proc_pid_mem(5)). The process runs on meanwhile. */
export function scanMemory(pid: number, needles: Needles): Found {
  const counts: Record<string, number> = Object.fromEntries(Object.keys(needles).map((name) => [name, 0]))
  const fd = openSync(`/proc/${pid}/mem`, 'r')
  const buffer = Buffer.alloc(CHUNK)
  let bytes = 0
  try {
    for (const { start, end } of areasOf(pid))
      for (let at = start; at < end; at += CHUNK - OVERLAP) {
        const read = readAt(fd, buffer, at, Math.min(CHUNK, end - at))
        // What begins in the overlap is counted with the next piece.
        const limit = at + CHUNK < end ? read - OVERLAP : read
        for (const [from, to] of usedParts(buffer.subarray(0, read))) {
          bytes += to - from
          const part = buffer.subarray(from, to)
          for (const [name, forms] of Object.entries(needles))
            for (const form of forms) counts[name] = (counts[name] ?? 0) + occurrences(part, form, limit - from)
        }
      }
  } finally {
    closeSync(fd)
    buffer.fill(0)
  }
  return { bytes, counts }
}

/** All that can be read, but for what the kernel shows ([vvar]), and files that are mapped to be read only. */
function areasOf(pid: number): { start: number; end: number }[] {
  return readFileSync(`/proc/${pid}/maps`, 'utf8')
    .split('\n')
    .filter((line) => /^\S+ r(?:w|\S\S\S +\S+ \S+ \d+ *(?!\/|\[v)\S*$)/.test(line))
    .map((line) => {
      const [start = 0, end = 0] = (line.split(' ')[0] ?? '').split('-').map((text) => Number.parseInt(text, 16))
      return { start, end }
    })
}

const PAGES = 64 * 1024
const UNUSED = Buffer.alloc(PAGES)

/** Where it is not all zeros: most of what is mapped was never touched. No needle has zeros at its border, so none is cut. */
function usedParts(text: Buffer): [from: number, to: number][] {
  const parts: [number, number][] = []
  for (let at = 0; at < text.length; at += PAGES) {
    const to = Math.min(at + PAGES, text.length)
    if (text.subarray(at, to).equals(UNUSED.subarray(0, to - at))) continue
    const last = parts.at(-1)
    if (last?.[1] === at) last[1] = to
    else parts.push([at, to])
  }
  return parts
}

/** What was unmapped since counts as nothing. */
function readAt(fd: number, buffer: Buffer, position: number, length: number): number {
  try {
    return readSync(fd, buffer, 0, length, position)
  } catch {
    return 0
  }
}

function occurrences(text: Buffer, needle: Buffer, limit: number): number {
  let count = 0
  for (let at = text.indexOf(needle); at >= 0 && at < limit; at = text.indexOf(needle, at + 1)) count += 1
  return count
}

/**
 * The forms in which a private key may lie in memory: `number` is its secret number as OpenSSL computes with it (little-endian words);
 * all others are copies that were made to carry it somewhere. `freed` is what OpenSSL leaves of a DER that it has parsed and freed without
 * overwriting it: mostly soon reused, now and then not.
 */
export function formsOf(pem: string): Needles {
  const key = createPrivateKey(pem)
  const { d = '', p } = key.export({ format: 'jwk' })
  const secret = Buffer.from(d, 'base64url')
  const der = key.export({ type: 'pkcs8', format: 'der' })
  const start = der.indexOf(secret)
  const end = start + secret.length
  const traditional = key.export({ type: p === undefined ? 'sec1' : 'pkcs1', format: 'pem' })
  return {
    number: [Buffer.from(secret).reverse()],
    // In DER, JWK and raw form alike.
    bytes: [secret],
    // From the first byte on: a Buffer that was not overwritten.
    der: [der.subarray(0, end)],
    // In what precedes it in DER, which may lack its beginning: there malloc keeps its books of what was freed, or something else lies by now.
    freed: [der.subarray(start - 16, end)],
    hex: [Buffer.from(secret.toString('hex')), Buffer.from(secret.toString('hex').toUpperCase())],
    base64: [Buffer.from(secret.toString('base64url').slice(0, 40))],
    // A line of the middle, as this file has it, and as Vault sends it; of strings with other characters in them, too.
    ...textForms('pem', pem, p !== undefined),
    ...textForms('pemOfVault', String(traditional), p !== undefined),
  }
}

function textForms(name: string, pem: string, isLong: boolean): Needles {
  const lines = pem.split('\n').filter((line) => line.length === 64)
  // The first line of an EC key holds secret bytes already; the first third of an RSA key is public.
  const line = lines[isLong ? Math.floor(lines.length / 2) : 0] ?? ''
  return { [name]: [Buffer.from(line), Buffer.from(line, 'utf16le')] }
}
