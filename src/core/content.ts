/** Milliseconds since 1970. */
export type Instant = number

/** What a source yields, by what the flow has to know of it: a certificate (`bundle.ts`) or the values of a secret (`snapshot.ts`). */
export interface Content {
  /** Where it came from, such as `vault-pki https://vault:8200 pki`; what is of another origin is due. */
  readonly origin: string
  /** Tells it from any other; no secret can be guessed from it. */
  readonly fingerprint: string
  /** Changes with what stands beside it, such as a newer OCSP response for the same certificate; undefined where nothing does. */
  readonly edition?: string | undefined
  /** For people: the serial number of a certificate, the versions of a secret. */
  readonly serial: string
  readonly notBefore: Instant
  /** `NEVER` where it does not end. */
  readonly notAfter: Instant
  readonly receivedAt: Instant
}

/** Changes whenever there is anything new to write. */
export const editionOf = ({ fingerprint, edition }: Content): string =>
  edition === undefined ? fingerprint : `${fingerprint} ${edition}`

export const isSameContent = (a: Content | undefined, b: Content | undefined): boolean =>
  a !== undefined && b !== undefined && editionOf(a) === editionOf(b)

/** The last instant that a Date can hold: the end of what has none. */
export const NEVER: Instant = 8.64e15
