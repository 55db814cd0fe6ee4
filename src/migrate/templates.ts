import { basename, dirname, isAbsolute, join, resolve } from 'node:path'
import { isRecord } from '../config/problems.ts'
import { parseCertificate } from '../injector/short-forms.ts'
import { type CertificateTemplate, type Role, readCertificateTemplate } from './certificate-template.ts'
import { type Delimiters, type Part, parseGoTemplate, Untranslatable } from './go-template.ts'
import { toLiquid } from './liquid.ts'
import { type Context, given, type Notes, type Plain, type PlainMap, settleRest } from './migration.ts'
import { reloadOf } from './reload.ts'
import type { Settings } from './settings.ts'
import { createValueBook } from './value-book.ts'

export interface TemplateDefaults {
  readonly delimiters: Delimiters
  /** How often is read again what has no lease. */
  readonly poll: string | undefined
}

/** What the templates of a file become. */
export interface Deliveries {
  readonly certificates: readonly PlainMap[]
  readonly secrets: readonly PlainMap[]
}

/**
 * Each certificate that templates print becomes one of `certificates`. The other templates of a directory become one of `secrets`: they are
 * rendered together, of one version of all they read, and swapped as one set.
 */
export function fromTemplates(blocks: readonly Settings[], defaults: TemplateDefaults, context: Context): Deliveries {
  const templates = withoutRivals(
    blocks.flatMap((block) => readTemplate(block, defaults, context)),
    context,
  )
  const [printed, plain] = [
    templates.filter(({ certificate }) => certificate),
    templates.filter(({ certificate }) => !certificate),
  ]
  const entries = [
    ...[...Map.groupBy(printed, certificateKey).values()].map((group) => certificateEntry(group, context)),
    ...[...Map.groupBy(plain, ({ destination }) => dirname(destination)).values()].map((group) =>
      secretEntry(group, defaults, context),
    ),
  ].filter((entry) => entry !== undefined)
  nameApart(entries)
  settleApart(entries, context)
  return {
    certificates: entries.filter(({ isCertificate }) => isCertificate).map(({ map }) => map),
    secrets: entries.filter(({ isCertificate }) => !isCertificate).map(({ map }) => map),
  }
}

interface Template {
  readonly destination: string
  /** Taken from a working directory that was another one. */
  readonly isRelative: boolean
  readonly line: number
  readonly text: string
  readonly parts: readonly Part[]
  readonly certificate: CertificateTemplate | undefined
  readonly mode: string | undefined
  readonly uid: string | undefined
  readonly gid: string | undefined
  readonly reload: PlainMap | undefined
  /** What is absent was an error already. */
  readonly isStrict: boolean
}

/** Of templates that write the same file, the first. */
function withoutRivals(templates: readonly Template[], { draft }: Context): readonly Template[] {
  const first = new Map<string, Template>()
  for (const template of templates) {
    const { destination, line, text } = template
    const rival = first.get(destination)
    if (rival)
      draft.lose({
        what: `template of ${destination}`,
        line,
        why: `the template on line ${rival.line} writes this file, too, which stays`,
        template: text,
      })
    else first.set(destination, template)
  }
  return [...first.values()]
}

const COVERED: Notes = {
  backup: 'the set before is kept, and put back where the target refuses the new one',
  create_dest_dirs: 'directories are made',
  wait: 'all values of a secret are read before it is rendered, and reloads that come within half a second are one',
  error_fatal: 'certferry tries on, and keeps what is good',
  sandbox_path: 'a template has no way to files',
  function_denylist: 'a template has no way to code, files or the network',
  function_blacklist: 'a template has no way to code, files or the network',
}

function readTemplate(block: Settings, { delimiters }: TemplateDefaults, context: Context): Template[] {
  const { draft } = context
  const target = block.text('destination') ?? ''
  const source = block.text('source')
  const given = block.text('contents')
  const left = block.text('left_delimiter') ?? delimiters.left
  const right = block.text('right_delimiter') ?? delimiters.right
  const perms = block.mode('perms')
  const isStrict = block.flag('error_on_missing_key') === true
  const ownership = { uid: block.text('uid') ?? block.text('user'), gid: block.text('gid') ?? block.text('group') }
  const reload = reloadOf(block, context)
  settleRest(block, 'template', { covered: COVERED }, context)
  const what = `template of ${target || '(no destination)'}`
  const text = given ?? (source === undefined ? undefined : context.surroundings.read(source))
  const lose = (why: string) => {
    draft.lose({ what, line: block.line, why, ...(text !== undefined && { template: text }) })
    return []
  }
  if (target === '') return lose('has no destination')
  if (text === undefined)
    return lose(
      source === undefined
        ? 'has neither contents nor source'
        : `its source ${source} cannot be read here; run this where it can`,
    )
  const destination = resolve(context.surroundings.directory, target)
  try {
    const parts = parseGoTemplate(text, { left, right })
    const certificate = readCertificateTemplate(parts)
    if (!certificate) translateAll([parts], undefined)
    return [
      {
        destination,
        isRelative: !isAbsolute(target),
        line: block.line,
        text,
        parts,
        certificate,
        mode: perms,
        ...ownership,
        reload,
        isStrict,
      },
    ]
  } catch (error) {
    if (error instanceof Untranslatable) return lose(`line ${error.line} of it: ${error.message}`)
    throw error
  }
}

/** An entry of `certificates` or `secrets`, and the directory it would like for itself. */
interface Entry {
  readonly isCertificate: boolean
  readonly map: PlainMap
  readonly outputs: readonly PlainMap[]
  readonly line: number
}

const certificateKey = ({ certificate }: Template): string =>
  JSON.stringify([certificate?.path, ...(certificate?.parameters ?? [])])

interface CertificateFile {
  readonly path: string
  readonly roles: readonly Role[]
  readonly template: Pick<Template, 'mode' | 'uid' | 'gid' | 'line'>
}

function certificateEntry(templates: readonly Template[], context: Context): Entry | undefined {
  const [first] = templates
  const asked = first?.certificate
  if (!first || !asked) return undefined
  const lose = (why: string) => {
    for (const { destination, line, text } of templates)
      context.draft.lose({ what: `template of ${destination}`, line, why, template: text })
    return undefined
  }
  const query = String(
    new URLSearchParams(
      asked.parameters.map((each): [string, string] => [
        each.slice(0, each.indexOf('=')).trim(),
        each.slice(each.indexOf('=') + 1).trim(),
      ]),
    ),
  )
  const options = parseCertificate(`${asked.path}?${query}`)
  if (typeof options === 'string') return lose(options)
  const files = templates.flatMap(filesOf)
  const outputs = outputsOf(files, context)
  if (typeof outputs === 'string') return lose(outputs)
  const map = given({
    name: nameFor(files.find(({ roles }) => roles.includes('certificate'))?.path ?? first.destination),
    ...plainMap(options),
    outputs,
    ...reloads(templates),
  })
  if (templates.some(({ isRelative }) => isRelative)) for (const output of outputs) remarkRelative(output, context)
  context.draft.remark(
    map,
    'source',
    `A restart issues nothing while the certificate on disk is good, and a change of its names is noticed. ${asked.path.includes('/issue/') ? 'With method: sign, the default of certferry, the key never leaves this machine.' : ''}`.trim(),
  )
  return { isCertificate: true, map, outputs, line: first.line }
}

/** What `parseCertificate` makes is made of plain values. */
function plainMap(value: unknown): PlainMap {
  if (!isRecord(value)) return {}
  return Object.fromEntries(Object.entries(value).map(([name, each]) => [name, plainOf(each)]))
}

function plainOf(value: unknown): Plain | undefined {
  if (Array.isArray(value)) return value.map(plainOf).filter((each) => each !== undefined)
  if (isRecord(value)) return plainMap(value)
  return typeof value === 'string' || typeof value === 'number' || typeof value === 'boolean' ? value : undefined
}

function filesOf(template: Template): CertificateFile[] {
  const { prints = [], files = [] } = template.certificate ?? {}
  const sides = files.map(({ path, roles, user, group, mode }) => ({
    path,
    roles,
    template: { mode, uid: user || undefined, gid: group || undefined, line: template.line },
  }))
  return [...(prints.length > 0 ? [{ path: template.destination, roles: prints, template }] : []), ...sides]
}

/** One set, in the directory of the key. A text says why there is none. */
function outputsOf(files: readonly CertificateFile[], context: Context): PlainMap[] | string {
  const { draft } = context
  const holder = files.find(({ roles }) => roles.includes('key')) ?? files[0]
  if (!holder) return 'prints nothing'
  const directory = dirname(holder.path)
  for (const { path, template } of files)
    if (dirname(path) !== directory)
      draft.lose({
        what: path,
        line: template.line,
        why: `certferry keeps a set in one directory; it is ${join(directory, basename(path))} now, so tell the reader`,
      })
  const combined = files.filter(({ roles }) => roles.includes('key') && roles.includes('certificate'))
  const single = files.filter((file) => !combined.includes(file))
  const outputs = combined.map((file): PlainMap => {
    const output = given({ kind: 'combined', directory, file: basename(file.path), ...access(file, context) })
    if (file.template.mode === undefined) remarkMode(output, context)
    draft.remark(
      output,
      'file',
      'The key comes first, then the certificate with its intermediates; a root is left out.',
    )
    return output
  })
  if (single.length === 0) return outputs
  const names = pemNames(single)
  if (typeof names === 'string') return names
  const key = single.find(({ roles }) => roles.includes('key'))
  const open = single.find(({ roles }) => !roles.includes('key'))
  const pem = given({
    kind: 'pem',
    directory,
    files: names,
    ...access(key ?? holder, context),
    ...(key && open && certificateAccess(open, context)),
  })
  if ((key ?? holder).template.mode === undefined) remarkMode(pem, context)
  draft.remark(
    pem,
    'files',
    `The certificate is followed by its intermediates, and ca holds the roots.${names.ca === undefined ? ' ca.crt is written besides.' : ''}${names.key === undefined ? ' tls.key is written besides.' : ''}`,
  )
  return [...outputs, pem]
}

function pemNames(files: readonly CertificateFile[]): PlainMap | string {
  const names: PlainMap = {}
  for (const { path, roles } of files) {
    const role = roles.includes('key') ? 'key' : roles.includes('certificate') ? 'certificate' : 'ca'
    if (role === 'key' && roles.length > 1)
      return `${path} holds the key with a CA, a combination that certferry does not have; use output kind combined`
    if (names[role] !== undefined)
      return `the ${role} is written to several files, ${String(names[role])} and ${basename(path)}; give it one name`
    names[role] = basename(path)
  }
  return names
}

/** Nobody but the owner and the group reads a secret. */
function access({ path, template: { mode, uid, gid, line } }: CertificateFile, context: Context): PlainMap {
  const bits = Number.parseInt(mode ?? '0600', 8)
  const kept = (bits & 0o640) | 0o400
  if (bits !== kept)
    context.draft.lose({
      what: `perms of ${path}`,
      line,
      why: `${mode} lets others than its owner and group read it, or write; certferry gives ${octal(kept)} at most`,
    })
  return { ...(mode !== undefined && { mode: octal(kept) }), ...ownership({ uid, gid, path, line }, context) }
}

function certificateAccess({ path, template: { mode, line } }: CertificateFile, context: Context): PlainMap {
  if (mode === undefined) return {}
  const bits = Number.parseInt(mode, 8)
  const kept = (bits & 0o644) | 0o400
  if (bits !== kept)
    context.draft.lose({
      what: `perms of ${path}`,
      line,
      why: `${mode} is more than a certificate needs; certferry gives ${octal(kept)}`,
    })
  return { certificateMode: octal(kept) }
}

const octal = (bits: number): string => bits.toString(8).padStart(4, '0')

interface Ownership {
  readonly uid: string | undefined
  readonly gid: string | undefined
  readonly path: string
  readonly line: number
}

function ownership({ uid, gid, path, line }: Ownership, { draft }: Context): PlainMap {
  const numbered = (name: 'uid' | 'gid', value: string | undefined): PlainMap => {
    if (value === undefined || value === '') return {}
    if (/^\d+$/.test(value)) return { [name]: Number(value) }
    draft.lose({
      what: `${name === 'uid' ? 'user' : 'group'} of ${path}`,
      line,
      why: `certferry takes numbers, which mean the same in each image; write ${name}: followed by what "id -${name[0]} ${value}" prints`,
    })
    return {}
  }
  return { ...numbered('uid', uid), ...numbered('gid', gid) }
}

/** The commands of all templates of an entry, each once. */
function reloads(templates: readonly Template[]): PlainMap {
  const all = new Map(templates.flatMap(({ reload }) => (reload ? [[JSON.stringify(reload), reload] as const] : [])))
  return all.size === 0 ? {} : { reload: [...all.values()] }
}

function secretEntry(templates: readonly Template[], { poll }: TemplateDefaults, context: Context): Entry | undefined {
  const { draft } = context
  const { values, liquid } = translateAll(
    templates.map(({ parts }) => parts),
    poll,
  )
  const [first] = templates
  if (!first) return undefined
  if (Object.keys(values).length === 0) {
    for (const { destination, line, text } of templates)
      draft.lose({
        what: `template of ${destination}`,
        line,
        why: 'reads nothing from Vault; write the file yourself',
        template: text,
      })
    return undefined
  }
  const outputs = templates.map((template, index): PlainMap => {
    const { destination } = template
    const output = given({
      kind: 'template',
      directory: dirname(destination),
      file: basename(destination),
      ...access({ path: destination, roles: [], template }, context),
      template: liquid[index]?.template,
    })
    for (const remark of liquid[index]?.remarks ?? []) draft.remark(output, 'template', remark)
    if (template.mode === undefined) remarkMode(output, context)
    if (!template.isStrict)
      draft.remark(
        output,
        'template',
        `A field that is absent is an error, and the file stays as it was; ${context.tool} printed <no value>.`,
      )
    return output
  })
  const map = given({
    name: nameFor(templates.length === 1 ? first.destination : dirname(first.destination)),
    values,
    outputs,
    ...reloads(templates),
  })
  if (Object.keys(reloads(templates)).length > 0 && templates.length > 1)
    draft.remark(map, 'reload', 'Runs after any of the files has changed: they are one set.')
  templates.forEach(({ isRelative }, index) => void (isRelative && remarkRelative(outputs[index], context)))
  for (const value of Object.values(values)) if (isRecord(value) && value.kind === 'vault-kv') remarkMount(map, context)
  return { isCertificate: false, map, outputs, line: first.line }
}

function remarkMode(output: PlainMap, { draft, tool }: Context): void {
  const open = `Its mode is 0600, where ${tool} gave 0644; to let the group read it, write mode: '0640' and gid.`
  draft.remark(output, 'directory', open)
}

function remarkRelative(output: PlainMap | undefined, { draft, tool }: Context): void {
  if (output)
    draft.remark(output, 'directory', `It was taken from the working directory of ${tool}; check that it is this one.`)
}

function remarkMount(map: PlainMap, { draft }: Context): void {
  draft.remark(
    map,
    'values',
    'Of KV version 2 mount and path stand apart, without data/; a new version is noticed by one request every poll.',
  )
}

/** Twice: which paths are KV version 2 is known only once all templates have been read. */
export function translateAll(templates: readonly (readonly Part[])[], poll: string | undefined) {
  const first = createValueBook(new Set(), poll)
  for (const parts of templates) toLiquid(parts, first.book)
  const kv2 = new Set(
    [...first.seen].flatMap(([path, fields]) => (fields.size === 1 && fields.has('data') ? [path] : [])),
  )
  const { book, values } = createValueBook(kv2, poll)
  return { values, liquid: templates.map((parts) => toLiquid(parts, book)) }
}

/** As names of certificates and secrets may be. */
export const nameFor = (path: string): string =>
  basename(path)
    .replace(/\.(?:crt|cert|pem|cer|key|conf|cfg|env|json|ya?ml|txt|properties|tpl|ctmpl)$/i, '')
    .replace(/[^A-Za-z0-9._-]+/g, '-')
    .replace(/^[^A-Za-z0-9]+|[^A-Za-z0-9]+$/g, '')
    .slice(0, 60) || 'secret'

function nameApart(entries: readonly Entry[]): void {
  const taken = new Set<string>()
  for (const { map } of entries) {
    const stem = String(map.name)
    let name = stem
    for (let count = 2; taken.has(name); count += 1) name = `${stem}-${count}`
    taken.add(name)
    map.name = name
  }
}

/** A set is swapped as a whole, so no two share a directory, nor is one within the other. */
function settleApart(entries: readonly Entry[], { draft }: Context): void {
  const wanted = entries.map(({ outputs }) => new Set(outputs.map(({ directory }) => String(directory))))
  const clash = (index: number, directory: string) =>
    wanted.some(
      (others, other) =>
        other !== index && [...others].some((each) => each === directory || each.startsWith(`${directory}/`)),
    )
  entries.forEach(({ map, outputs, line }, index) => {
    for (const directory of wanted[index] ?? []) {
      if (!clash(index, directory)) continue
      const own = join(directory, String(map.name))
      for (const output of outputs) if (output.directory === directory) output.directory = own
      draft.lose({
        what: `${directory} of ${String(map.name)}`,
        line,
        why: `another set is there, or within; certferry swaps a set as a whole, so it is in ${own} now, and its readers have to be told`,
      })
    }
  })
}
