import { createHmac, randomInt } from 'node:crypto'
import { connect } from 'node:net'
import type { Clock } from '../clock.ts'
import { SidecarError } from '../errors.ts'
import type { UpdateOptions } from './options.ts'

/** RFC 1035 §3.2, RFC 2136 §1.3, RFC 8945 §4.2. */
const TYPE = { soa: 6, txt: 16, tsig: 250, any: 255 } as const
const CLASS = { in: 1, none: 254, any: 255 } as const
const OPCODE_UPDATE = 5 << 11
const FUDGE_SECONDS = 300
const ANSWER_MS = 10_000

/**
 * Dynamic updates (RFC 2136) of one zone over TCP, signed by TSIG (RFC 8945). Of the answer only its code is believed: whoever could forge it
 * could at most have us ask the CA in vain. Throws ACME_CHALLENGE_SETUP.
 */
export function createUpdates(options: UpdateOptions, secret: Buffer, { now }: Pick<Clock, 'now'>) {
  const { zone, ttl } = options
  const send = async (record: Buffer, signal: AbortSignal) => {
    const id = randomInt(1, 0xffff)
    const header = shorts(id, OPCODE_UPDATE, 1, 0, 1, 0)
    const message = Buffer.concat([header, nameOf(zone), shorts(TYPE.soa, CLASS.in), record])
    const answer = await exchange(options.server, sign(message, options, secret, now()), signal)
    if (answer.length < 12)
      throw new SidecarError('ACME_CHALLENGE_SETUP', `${options.server} answers with no DNS message`)
    const code = answer.readUInt16BE(2) & 0x0f
    if (answer.readUInt16BE(0) === id && code === 0) return
    throw new SidecarError(
      'ACME_CHALLENGE_SETUP',
      `${options.server} refuses the update of ${zone}: ${RCODES[code] ?? `code ${code}`}`,
    )
  }
  return {
    add: (name: string, text: string, _domain: string, signal: AbortSignal) =>
      send(recordOf(name, CLASS.in, Math.round(ttl / 1000), text), signal),
    // RFC 2136 §2.5.4: this one record, and no other of the name.
    remove: (name: string, text: string, _domain: string, signal: AbortSignal) =>
      send(recordOf(name, CLASS.none, 0, text), signal),
  }
}

const RCODES: Readonly<Record<number, string>> = {
  1: 'FORMERR',
  2: 'SERVFAIL',
  4: 'NOTIMP, it takes no updates',
  5: 'REFUSED, its policy does not let this key',
  8: 'NXRRSET',
  9: 'NOTAUTH, the key or its secret is not known there, or the clocks differ',
  10: 'NOTZONE, the name is not in this zone',
}

function recordOf(name: string, recordClass: number, ttl: number, text: string): Buffer {
  const content = Buffer.from(text, 'latin1')
  const data = Buffer.concat([Buffer.of(content.length), content])
  return Buffer.concat([nameOf(name), shorts(TYPE.txt, recordClass), seconds(ttl), shorts(data.length), data])
}

/** RFC 8945 §4.3.3: the message as it would be without the TSIG record, then the variables of that. */
function sign(message: Buffer, { keyName, algorithm }: UpdateOptions, secret: Buffer, nowMs: number): Buffer {
  const now = Math.floor(nowMs / 1000)
  const time = Buffer.concat([shorts(Math.floor(now / 2 ** 32)), seconds(now % 2 ** 32)])
  const name = nameOf(keyName.toLowerCase())
  const algorithmName = nameOf(algorithm)
  const variables = [name, shorts(CLASS.any), seconds(0), algorithmName, time, shorts(FUDGE_SECONDS, 0, 0)]
  const mac = createHmac(algorithm.slice('hmac-'.length), secret)
    .update(Buffer.concat([message, ...variables]))
    .digest()
  const original = message.readUInt16BE(0)
  const data = Buffer.concat([algorithmName, time, shorts(FUDGE_SECONDS, mac.length), mac, shorts(original, 0, 0)])
  const record = Buffer.concat([name, shorts(TYPE.tsig, CLASS.any), seconds(0), shorts(data.length), data])
  const signed = Buffer.concat([message, record])
  signed.writeUInt16BE(1, 10)
  return signed
}

/** RFC 1035 §4.2.2: each message after its length. */
function exchange(server: string, message: Buffer, signal: AbortSignal): Promise<Buffer> {
  const { host, port } = placeOf(server)
  return new Promise((resolve, reject) => {
    const fail = (why: string) =>
      reject(
        signal.aborted
          ? signal.reason
          : new SidecarError('ACME_CHALLENGE_SETUP', `${server} cannot be asked for the update: ${why}`),
      )
    const socket = connect({ host, port, signal, timeout: ANSWER_MS })
    let got = Buffer.alloc(0)
    socket.on('error', (error) => fail(error.message))
    socket.on('timeout', () => socket.destroy(new Error('it does not answer')))
    socket.on('close', () => fail('it closed the connection'))
    socket.on('data', (chunk) => {
      got = Buffer.concat([got, chunk])
      if (got.length < 2 || got.length < 2 + got.readUInt16BE(0)) return
      resolve(got.subarray(2, 2 + got.readUInt16BE(0)))
      socket.destroy()
    })
    socket.write(Buffer.concat([shorts(message.length), message]))
  })
}

function placeOf(server: string) {
  const { hostname, port } = new URL(`dns://${server}`)
  return { host: hostname.replace(/^\[|\]$/g, ''), port: port === '' ? 53 : Number(port) }
}

function nameOf(name: string): Buffer {
  const labels = name.replace(/\.$/, '').split('.')
  if (labels.some((label) => label === '' || label.length > 63))
    throw new SidecarError('ACME_CHALLENGE_SETUP', `${name} is no DNS name: each label has 1 to 63 characters`)
  return Buffer.concat([
    ...labels.flatMap((label) => [Buffer.of(label.length), Buffer.from(label, 'latin1')]),
    Buffer.of(0),
  ])
}

function shorts(...values: readonly number[]): Buffer {
  const bytes = Buffer.alloc(2 * values.length)
  for (const [index, value] of values.entries()) bytes.writeUInt16BE(value, 2 * index)
  return bytes
}

function seconds(value: number): Buffer {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32BE(value)
  return bytes
}
