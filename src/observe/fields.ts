import { redact, Secret } from '../core/secret.ts'
import { SidecarError, systemCode } from '../errors.ts'
import type { EventMap, EventName } from './events.ts'

export type Plain = string | number | boolean | null | readonly Plain[] | { readonly [key: string]: Plain }

/** Instants of the event map, by their name. */
const INSTANT = /(?:At|^notAfter)$/
/** So that no line grows without bound: an error may quote what somebody else sent. */
const MAX_TEXT = 2000
const MAX_ITEMS = 100
const MAX_DEPTH = 4

/** The net below `Secret`: fields of these names are masked at any depth. */
const SECRET_KEY =
  /^(?:x-vault-token|(?:client_?|wrapping_?)?token|secret_?id|role_?id|jwt|password|passphrase|private_?key|authorization)$/i
const MASK = String(new Secret(''))

/**
 * The payload of an event as flat fields for a line of log: instants as ISO 8601, `code` as `reason`, the message as `detail`
 * (the constant text of the event is the message of the line). What is undefined is left out; what looks like a secret is masked.
 */
export function fieldsOf<Name extends EventName>(event: EventMap[Name]): Record<string, Plain> {
  const entries = Object.entries(event).flatMap(([key, value]) => (value === undefined ? [] : [field(key, value)]))
  return Object.fromEntries(entries)
}

function field(key: string, value: unknown): [string, Plain] {
  if (INSTANT.test(key) && typeof value === 'number') return [key === 'nextAt' ? 'next' : key, isoTime(value)]
  if (key.endsWith('Ms') && typeof value === 'number') return [key, Math.round(value * 10) / 10]
  if (key === 'code' && typeof value === 'string') return ['reason', value.toLowerCase()]
  if (key === 'message') return ['detail', plain(value)]
  return [key, keyed(key, value)]
}

/** ISO 8601 in UTC; what no calendar can name is written as the number it is. */
export const isoTime = (instant: number): string =>
  Math.abs(instant) <= 8.64e15 ? new Date(instant).toISOString() : String(instant)

const keyed = (key: string, value: unknown, depth = 0): Plain => (SECRET_KEY.test(key) ? MASK : plain(value, depth))

/** Any value as what JSON can hold. Strings lose tokens and private keys. */
function plain(value: unknown, depth = 0): Plain {
  if (typeof value === 'string') return cut(redact(value))
  if (typeof value === 'number' || typeof value === 'boolean' || value === null) return value
  if (value instanceof Secret) return value.toString()
  if (value instanceof Error) return plainError(value, depth)
  if (depth >= MAX_DEPTH || typeof value !== 'object') return cut(redact(String(value)))
  // Bytes are never text worth a line, and may well be a key.
  if (ArrayBuffer.isView(value)) return `[${value.byteLength} bytes]`
  if (Array.isArray(value)) return value.slice(0, MAX_ITEMS).map((item) => plain(item, depth + 1))
  const entries = Object.entries(value).slice(0, MAX_ITEMS)
  return Object.fromEntries(entries.map(([key, item]) => [key, keyed(key, item, depth + 1)]))
}

/** Only the fields named here: HTTP errors carry whole requests, tokens included (node-vault, axios). */
function plainError(error: Error, depth: number): Plain {
  const code = error instanceof SidecarError ? error.code : systemCode(error)
  return {
    name: error.name,
    message: cut(redact(error.message)),
    ...(code === undefined ? {} : { code }),
    ...(error.stack === undefined ? {} : { stack: cut(redact(error.stack)) }),
    ...(error.cause === undefined || depth >= MAX_DEPTH ? {} : { cause: plain(error.cause, depth + 1) }),
  }
}

const cut = (text: string) => (text.length > MAX_TEXT ? `${text.slice(0, MAX_TEXT)}…` : text)
