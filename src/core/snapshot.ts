import type { Content, Instant } from './content.ts'
import type { Secret } from './secret.ts'
import type { Fields, Values } from './values.ts'

/** The right to use what Vault made, until it ends. */
export interface Lease {
  readonly id: string
  readonly renewable: boolean
  /** The longest it was ever given for, ms; less than that at a renewal means that its max TTL is near. */
  readonly fullTtlMs: number
}

/** What was read at one place. */
export interface Reading {
  readonly fields: Secret<Fields>
  /** For people: `version 3`, or when it was made. */
  readonly version: string
  /** True where reading made it, and reading again makes another one. */
  readonly made: boolean
  readonly lease?: Lease | undefined
  readonly receivedAt: Instant
  /** `NEVER` where it does not end. */
  readonly notAfter: Instant
}

/** All that a secret consists of, read together; what is rendered of it is of one moment. */
export interface Snapshot extends Content {
  readonly readings: Readonly<Record<string, Reading>>
}

/** The variables of a template, and what the other formats list. */
export const valuesOf = ({ readings }: Snapshot): Values =>
  Object.fromEntries(Object.entries(readings).map(([name, { fields }]) => [name, fields.reveal()]))
