/** Tags of X.690 §8.1.2, constructed where the type is. */
export const TAG = {
  integer: 0x02,
  bitString: 0x03,
  octetString: 0x04,
  null: 0x05,
  oid: 0x06,
  utf8String: 0x0c,
  bmpString: 0x1e,
  sequence: 0x30,
  set: 0x31,
} as const

/** Tag, length, contents: X.690 §8.1 with the shortest form of the length (§10.1). */
export function der(tag: number, ...contents: readonly Buffer[]): Buffer {
  const length = contents.reduce((sum, { byteLength }) => sum + byteLength, 0)
  return Buffer.concat([Buffer.of(tag, ...lengthOctets(length)), ...contents])
}

function lengthOctets(length: number): number[] {
  if (length < 0x80) return [length]
  return [0x80 | octetsOf(length).length, ...octetsOf(length)]
}

function octetsOf(number: number): number[] {
  const octets: number[] = []
  for (let rest = number; rest > 0; rest >>>= 8) octets.unshift(rest & 0xff)
  return octets
}

export const sequence = (...contents: readonly Buffer[]): Buffer => der(TAG.sequence, ...contents)
export const octets = (content: Buffer): Buffer => der(TAG.octetString, content)
/** [n] of a context around a value: explicit tagging. */
export const explicit = (number: number, ...contents: readonly Buffer[]): Buffer => der(0xa0 | number, ...contents)

/** A whole number that is not negative (X.690 §8.3). */
export function integer(number: number): Buffer {
  const octets = number === 0 ? [0] : octetsOf(number)
  return der(TAG.integer, Buffer.of(...((octets[0] ?? 0) & 0x80 ? [0, ...octets] : octets)))
}

/** '1.2.840.113549' (X.690 §8.19). */
export function oid(dotted: string): Buffer {
  const [first = 0, second = 0, ...rest] = dotted.split('.').map(Number)
  return der(TAG.oid, Buffer.from([40 * first + second, ...rest].flatMap(base128)))
}

function base128(number: number): number[] {
  const octets = [number & 0x7f]
  for (let rest = number >>> 7; rest > 0; rest >>>= 7) octets.unshift(0x80 | (rest & 0x7f))
  return octets
}

/** The contents of each integer in a sequence of nothing else, such as an RSA key (RFC 8017 A.1.2). Throws a RangeError for what is none. */
export function integersIn(encoded: Buffer): Buffer[] {
  const outer = readHeader(encoded, 0, TAG.sequence)
  const found: Buffer[] = []
  for (let at = outer.start; at < outer.end; ) {
    const { start, end } = readHeader(encoded, at, TAG.integer)
    found.push(encoded.subarray(start, end))
    at = end
  }
  return found
}

function readHeader(encoded: Buffer, at: number, tag: number): { start: number; end: number } {
  const first = encoded[at + 1] ?? 0
  const count = first & 0x80 ? first & 0x7f : 0
  const length = count === 0 ? first : encoded.readUIntBE(at + 2, count)
  const start = at + 2 + count
  if (encoded[at] !== tag || start + length > encoded.length) throw new RangeError('is not the DER that it should be')
  return { start, end: start + length }
}
