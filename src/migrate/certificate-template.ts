import { type Control, type Part, type Pipe, type Term, Untranslatable } from './go-template.ts'

/** What a template prints of a certificate, as it is. */
export type Role = 'key' | 'certificate' | 'ca'

/** A file that a template of a certificate writes by itself, besides its destination. */
export interface SideFile {
  readonly path: string
  readonly user: string
  readonly group: string
  readonly mode: string
  readonly roles: readonly Role[]
}

/** A template that does nothing but print parts of one certificate. */
export interface CertificateTemplate {
  /** Of Vault's PKI: `pki/issue/web`. */
  readonly path: string
  readonly parameters: readonly string[]
  readonly line: number
  /** What goes to the destination, in its order. */
  readonly prints: readonly Role[]
  readonly files: readonly SideFile[]
}

/**
 * Reads a template such as `{{ with pkiCert "pki/issue/web" "common_name=…" }}{{ .Cert }}{{ .Key }}{{ end }}`; undefined where it asks for no
 * certificate. Throws {@link Untranslatable} where it does more than print parts of one.
 */
export function readCertificateTemplate(parts: readonly Part[]): CertificateTemplate | undefined {
  const call = parts.map(callIn).find((each) => each !== undefined)
  if (!call) return undefined
  const { block, path, parameters } = call
  const others = parts.filter((part) => part !== block && !isBlank(part))
  if (others.length > 0 || block.otherwise.length > 0)
    throw new Untranslatable(block.line, 'prints more than one certificate, which certferry keeps in a set of its own')
  const pieces = block.body.filter((part) => !isBlank(part)).map((part) => readPiece(part, block.line))
  const files = new Map<string, SideFile>()
  for (const { file, role } of pieces) {
    if (!file) continue
    const before = file.appends ? (files.get(file.path)?.roles ?? []) : []
    files.set(file.path, {
      path: file.path,
      user: file.user,
      group: file.group,
      mode: file.mode,
      roles: [...before, role],
    })
  }
  const prints = pieces.flatMap(({ file, role }) => (file ? [] : [role]))
  return { path, parameters, line: block.line, prints, files: [...files.values()] }
}

interface Call {
  readonly block: Control
  readonly path: string
  readonly parameters: readonly string[]
}

/** `secret` signs other things as well, such as keys of SSH. */
const ISSUES: Readonly<Record<string, RegExp>> = { pkiCert: /\/(?:issue|sign)\/[^/]+$/, secret: /\/issue\/[^/]+$/ }

function callIn(part: Part): Call | undefined {
  if (part.kind !== 'with' || part.pipe.commands.length !== 1) return undefined
  const [[head, ...terms] = []] = part.pipe.commands
  const issues = head?.kind === 'word' ? ISSUES[head.word] : undefined
  const texts = terms.flatMap((term) => (term.kind === 'text' ? [term.text] : []))
  const [path = '', ...parameters] = texts
  if (!issues?.test(path)) return undefined
  if (texts.length < terms.length)
    throw new Untranslatable(part.line, `${part.source}: the parameters are put together while it runs; write them out`)
  const wrong = parameters.find((parameter) => !parameter.includes('='))
  if (wrong !== undefined) throw new Untranslatable(part.line, `${part.source}: "${wrong}" is no name=value`)
  return { block: part, path, parameters }
}

const isBlank = (part: Part): boolean => part.kind === 'text' && part.text.trim() === ''

interface Piece {
  readonly role: Role
  readonly file?: {
    readonly path: string
    readonly user: string
    readonly group: string
    readonly mode: string
    readonly appends: boolean
  }
}

function readPiece(part: Part, line: number): Piece {
  if (part.kind === 'range') {
    const [only, ...more] = part.body.filter((each) => !isBlank(each))
    const prints = only?.kind === 'print' && more.length === 0 && fieldsOf(only.pipe)
    if (CHAINS.includes(fieldsOf(part.pipe) ?? '') && prints === '') return { role: 'ca' }
  }
  if (part.kind === 'print') {
    const [value = [], write, ...more] = part.pipe.commands
    const role = ROLES[fieldsOf({ declares: part.pipe.declares, commands: [value] }) ?? '']
    if (role && !write) return { role }
    const file = write && more.length === 0 ? fileOf(write) : undefined
    if (role && file) return { role, file }
  }
  const found = part.kind === 'text' ? JSON.stringify(part.text.trim().slice(0, 60)) : part.source
  throw new Untranslatable(
    part.kind === 'text' ? line : part.line,
    `${found}: does more than print parts of a certificate, which certferry writes as files of their own`,
  )
}

const ROLES: Readonly<Record<string, Role>> = {
  Key: 'key',
  Cert: 'certificate',
  CA: 'ca',
  'Data.Key': 'key',
  'Data.Cert': 'certificate',
  'Data.CA': 'ca',
  'Data.private_key': 'key',
  'Data.certificate': 'certificate',
  'Data.issuing_ca': 'ca',
}
const CHAINS = ['CAChain', 'Data.ca_chain']

/** `Data.Key` for `.Data.Key`, also of a variable; undefined where it is anything else. */
function fieldsOf({ declares, commands }: Pipe): string | undefined {
  const [[term, ...more] = [], ...filters] = commands
  return term?.kind === 'field' && declares.length + more.length + filters.length === 0
    ? term.names.join('.')
    : undefined
}

/** `writeToFile "/path" "user" "group" "0600"`, with `append` or `newline`, or both, after it. */
function fileOf([head, ...terms]: readonly Term[]): Piece['file'] {
  const [path, user, group, mode, flags = ''] = terms.map((term) => (term.kind === 'text' ? term.text : undefined))
  if (head?.kind !== 'word' || head.word !== 'writeToFile') return undefined
  if (path === undefined || user === undefined || group === undefined || mode === undefined) return undefined
  return { path, user, group, mode, appends: flags.includes('append') }
}
