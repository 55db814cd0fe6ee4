import { createHash } from 'node:crypto'
import * as z from 'zod'
import { SidecarError } from '../errors.ts'
import type { Plain } from './fields.ts'

/** Where a chain stands: its last line. */
export interface Head {
  readonly seq: number
  readonly hash: string
}

/** Before the first line. */
export const START: Head = { seq: 0, hash: '0'.repeat(64) }

/** The event of the line written first after one that a crash or a full disk cut off: `torn` is the SHA-256 of what was left of it. */
export const RESUMED = 'audit.resumed'

const Line = z.looseObject({
  seq: z.int(),
  time: z.string(),
  event: z.string(),
  prev: z.string(),
  hash: z.string(),
  torn: z.string().optional(),
})
type Line = z.output<typeof Line>

/** The next line of a chain. Its `hash` is the SHA-256 of the line without `,"hash":"…"`; that covers `prev`, and so all lines before. */
export function link(head: Head, fields: Readonly<Record<string, Plain>>): { text: string; head: Head } {
  const seq = head.seq + 1
  const body = JSON.stringify({ seq, ...fields, prev: head.hash })
  const hash = createHash('sha256').update(body).digest('hex')
  return { text: `${body.slice(0, -1)},"hash":"${hash}"}\n`, head: { seq, hash } }
}

// All below work on bytes read as latin1, one character a byte: a cut may go through a UTF-8 sequence.

const sha256 = (bytes: string) => createHash('sha256').update(bytes, 'latin1').digest('hex')
const LINE_END = /,"hash":"([0-9a-f]{64})"\}$/

/** What a line says, if it is as it was written; undefined otherwise. */
export function readLine(text: string): Line | undefined {
  const hash = LINE_END.exec(text)?.[1]
  if (hash === undefined || sha256(text.replace(LINE_END, '}')) !== hash) return undefined
  try {
    return Line.parse(JSON.parse(text))
  } catch {
    return undefined
  }
}

/** What names the remains of cut-off lines; undefined when one of them is whole, and so was not cut off but changed. */
export const tornHash = (remains: readonly string[]): string | undefined =>
  remains.some((text) => LINE_END.test(text)) ? undefined : sha256(remains.join('\n'))

/** More lines that are none were not left by crashes; the file is something else. */
const MAX_REMAINS = 100

/** Follows a chain line by line. */
export function createChainReader(file: string) {
  let head = START
  let number = 0
  let remains: string[] = []
  const broken = (at: number, why: string) => new SidecarError('AUDIT_BROKEN', `${file}:${at}: ${why}`)
  const damaged = () => broken(number - remains.length + 1, 'this line was changed')

  return {
    /** Throws AUDIT_BROKEN, naming the line. */
    next(text: string): void {
      const line = readLine(text)
      if (line === undefined) {
        number += 1
        remains.push(text)
        if (remains.length > MAX_REMAINS) throw damaged()
        return
      }
      if (remains.length > 0 && (line.torn === undefined || line.torn !== tornHash(remains))) throw damaged()
      number += 1
      if (remains.length === 0 && line.torn !== undefined) throw broken(number, 'the torn line before this one is gone')
      if (line.prev !== head.hash || line.seq !== head.seq + 1)
        throw broken(
          number,
          `lines before this one were removed, added or moved: number ${line.seq} follows ${head.seq}`,
        )
      remains = []
      head = { seq: line.seq, hash: line.hash }
    },
    /** At the end of the file; `rest` is what follows the last newline. What a crash cut off last is no damage. */
    end(rest: string): Head & { readonly torn: boolean } {
      if (head === START && (remains.length > 0 || rest !== '')) throw broken(1, 'this is no audit log')
      if (remains.length > 0 && rest === '') throw damaged()
      if (tornHash(remains) === undefined) throw damaged()
      return { ...head, torn: remains.length > 0 || rest !== '' }
    },
  }
}
