/** One X509SVID message of an answer; certificates and keys in DER. */
export interface Svid {
  readonly spiffeId: string
  /** The leaf first, then its issuers. */
  readonly chain: readonly Buffer[]
  /** PKCS#8; overwrite it after use. */
  readonly key: Buffer
  /** Roots of its own trust domain. */
  readonly bundle: readonly Buffer[]
  readonly hint: string
}

export interface X509SvidResponse {
  readonly svids: readonly Svid[]
  /** Roots of other trust domains. */
  readonly federated: readonly Buffer[]
}

/** Decodes an X509SVIDResponse (workloadapi.proto). Throws a RangeError with what is wrong; nothing of the content is in it. */
export function decodeX509SvidResponse(message: Buffer): X509SvidResponse {
  const { 1: svids = [], 3: federated = [] } = fieldsOf(message)
  return {
    svids: svids.map(svidOf),
    // A map is a list of entries, each with its key in field 1 and its value in field 2.
    federated: federated.flatMap((entry) => (fieldsOf(entry)[2] ?? []).flatMap(splitDer)),
  }
}

function svidOf(message: Buffer): Svid {
  const { 1: id, 2: chain, 3: key, 4: bundle, 5: hint } = fieldsOf(message)
  // Of a field that is given more than once the last one counts.
  const last = (field: readonly Buffer[] | undefined) => field?.at(-1) ?? Buffer.alloc(0)
  const svid = {
    spiffeId: last(id).toString(),
    chain: splitDer(last(chain)),
    key: last(key),
    bundle: splitDer(last(bundle)),
    hint: last(hint).toString(),
  }
  const empty = (['spiffeId', 'chain', 'key', 'bundle'] as const).find((name) => svid[name].length === 0)
  if (empty !== undefined) throw new RangeError(`its ${empty} is empty`)
  return svid
}

/**
 * The fields of type LEN by number: strings, bytes and messages; others are passed over, as are those of later versions. All parts are
 * views of `message`. https://protobuf.dev/programming-guides/encoding/
 */
function fieldsOf(message: Buffer): Record<number, Buffer[]> {
  const fields: Record<number, Buffer[]> = {}
  let at = 0
  const varint = () => {
    for (let value = 0, factor = 1; factor < 2 ** 49; factor *= 128) {
      const byte = message[at++]
      if (byte === undefined) throw new RangeError('it is cut off')
      value += (byte % 128) * factor
      if (byte < 128) return value
    }
    throw new RangeError('a number is too large')
  }
  const skip = (bytes: number) => {
    at += bytes
    if (at > message.length) throw new RangeError('it is cut off')
  }
  while (at < message.length) {
    const tag = varint()
    const [field, type] = [Math.floor(tag / 8), tag % 8]
    if (type === 0) varint()
    else if (type === 1) skip(8)
    else if (type === 5) skip(4)
    else if (type === 2) {
      const length = varint()
      skip(length)
      fields[field] = [...(fields[field] ?? []), message.subarray(at - length, at)]
    } else throw new RangeError(`it has a field of type ${type}`)
  }
  return fields
}

/** Certificates are SEQUENCEs, one after another (X.690 §8.1). */
function splitDer(bytes: Buffer): Buffer[] {
  const parts: Buffer[] = []
  for (let at = 0; at < bytes.length; ) {
    const first = bytes[at + 1]
    if (bytes[at] !== 0x30 || first === undefined) throw new RangeError('a list of certificates is none')
    const more = first < 128 ? 0 : first - 128
    // 128 alone is the indefinite length of BER.
    if (first === 128 || more > 3 || at + 2 + more > bytes.length) throw new RangeError('a certificate is cut off')
    const length = more === 0 ? first : bytes.readUIntBE(at + 2, more)
    const end = at + 2 + more + length
    if (end > bytes.length) throw new RangeError('a certificate is cut off')
    parts.push(bytes.subarray(at, end))
    at = end
  }
  return parts
}
