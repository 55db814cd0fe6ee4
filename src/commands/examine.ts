import { constants, existsSync } from 'node:fs'
import { open } from 'node:fs/promises'
import { parseCertificate, parseCertificates } from '../core/bundle.ts'
import { isIP } from '../core/ip.ts'
import { systemCode } from '../errors.ts'
import { type Address, formatAddress, parseAddress } from '../verifiers/address.ts'
import { type Chain, handshake } from '../verifiers/handshake.ts'
import { defaultPort } from '../verifiers/start-tls.ts'
import { type Expectations, type Judgement, judge, judgeAuthorities } from './judge.ts'

/** What was found out about one target. */
export interface Finding extends Judgement {
  readonly target: string
  readonly kind: 'host' | 'file'
  readonly protocol?: string | undefined
}

/** Examines `HOST[:PORT]`, an https URL, or a file: what exists on disk or holds a slash. Rejects only with the reason of `signal`. */
export function examine(target: string, expect: Expectations, signal: AbortSignal): Promise<Finding> {
  const host = /^https:\/\/([^/?#]+)/.exec(target)?.[1]
  if (host === undefined && (target.includes('/') || existsSync(target))) return examineFile(target, expect)
  return examineHost(host ?? target, expect, signal)
}

const TIMEOUT_MS = 10_000

async function examineHost(text: string, expect: Expectations, signal: AbortSignal): Promise<Finding> {
  const { startTls } = expect
  const address = tryAddress(text, defaultPort(startTls))
  if (!address) return { target: text, kind: 'host', ...unknown('is neither a file nor host:port') }
  const target = formatAddress(address)
  const name = expect.serverName ?? address.host
  const serverName = isIP(name) ? undefined : name
  const ca = expect.roots.map(String)
  const look = await handshake({ ...address, serverName, startTls, ca, timeoutMs: TIMEOUT_MS }, signal)
  if (!look.up) return { target, kind: 'host', ...critical(look.why) }
  const { chain, protocol, distrust } = look
  return { target, kind: 'host', protocol, ...judge(chain, expect, { name, distrust }) }
}

function tryAddress(text: string, port: number): Address | undefined {
  try {
    return parseAddress(text, port)
  } catch {
    return undefined
  }
}

const unknown = (problem: string): Judgement => ({ state: 'UNKNOWN', problems: [problem] })
const critical = (problem: string): Judgement => ({ state: 'CRITICAL', problems: [problem] })

async function examineFile(target: string, expect: Expectations): Promise<Finding> {
  const content = await readCertificates(target)
  return { target, kind: 'file', ...('state' in content ? content : judgeFile(content, expect)) }
}

interface Content {
  readonly certificates: Chain
  /** PEM of a private key in the same file. */
  readonly key: string | undefined
}

const MAX_BYTES = 1024 * 1024

/** What a PEM or DER file holds. A certificate that is gone or broken is critical; what may not be looked at is unknown. */
async function readCertificates(path: string): Promise<Content | Judgement> {
  try {
    // A FIFO must not hold us.
    await using file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK)
    const stat = await file.stat()
    if (!stat.isFile()) return unknown('is no file')
    if (stat.size > MAX_BYTES) return unknown('is larger than 1 MiB')
    const content = await file.readFile()
    const text = content.toString('latin1')
    const [first, ...rest] = text.includes('-----BEGIN') ? parseCertificates(text) : [parseCertificate(content)]
    if (!first) return critical('holds no certificate')
    const key = /-----BEGIN ([A-Z ]*PRIVATE KEY)-----[\s\S]+?-----END \1-----/.exec(text)?.[0]
    return { certificates: [first, ...rest], key }
  } catch (error) {
    const code = systemCode(error) ?? ''
    if (code === 'ENOENT') return critical('does not exist')
    if (/^E[A-Z]+$/.test(code)) return unknown(`cannot be read by this user: ${code}`)
    return critical('holds no certificate that parses')
  }
}

/** A file of nothing but CA certificates is a trust store: only its expiry counts. */
function judgeFile({ certificates, key }: Content, expect: Expectations): Judgement {
  const leafAt = certificates.findIndex(({ ca }) => !ca)
  const leaf = certificates[leafAt]
  if (!leaf) return judgeAuthorities(certificates, expect)
  const chain: Chain = [leaf, ...certificates.toSpliced(leafAt, 1)]
  return judge(chain, expect, { name: expect.serverName, key, isMisplaced: leafAt > 0 })
}
