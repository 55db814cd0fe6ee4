import { Document, isAlias, isCollection, isSeq, parseAllDocuments, visit } from 'yaml'
import * as z from 'zod'
import { isRecord } from '../config/problems.ts'
import { quote } from '../core/secret.ts'
import { SidecarError, toSidecarError } from '../errors.ts'
import { asksForInjection, PREFIX } from './annotations.ts'
import { askedBy, type InjectorContext, injectPod } from './inject.ts'
import { patchOf } from './patch.ts'
import { removeInjection } from './remove.ts'
import { parsePod } from './review.ts'

export interface Manifests {
  /** All of what came in, with comments, and with sidecars where they are asked for. */
  readonly text: string
  /** What got a sidecar, such as `Deployment web`. */
  readonly injected: readonly string[]
  readonly warnings: readonly string[]
}

/**
 * Does to the pods of a stream of manifests (YAML or JSON) what the webhook would do to them; one that has a sidecar already gets a new one. Throws
 * INJECTION_REFUSED with everything that is wrong, by document; then nothing was done.
 */
export function injectManifests(source: string, context: InjectorContext, name: string): Manifests {
  const documents = parseAllDocuments(source, { prettyErrors: true, uniqueKeys: true })
  const found: Found = { injected: [], warnings: [], refused: [] }
  const results = [...documents].map((document, index) => {
    const place = documents.length > 1 ? `${name}, document ${index + 1}` : name
    const [error] = document.errors
    if (error) found.refused.push(`${place}: is not valid YAML: ${quote(error.message.split('\n')[0] ?? '', 200)}`)
    return error ? document : injectDocument(document, place, { context, found })
  })
  if (found.refused.length > 0) throw new SidecarError('INJECTION_REFUSED', found.refused.join('\n'))
  return { text: results.map(String).join(''), ...found }
}

interface Found {
  readonly injected: string[]
  readonly warnings: string[]
  readonly refused: string[]
}

interface Work {
  readonly context: InjectorContext
  readonly found: Found
}

function injectDocument(document: Document.Parsed | Document, place: string, work: Work): Document {
  const before: unknown = document.toJS({ maxAliasCount: 100 })
  const after = injectObject(before, place, work)
  if (after === before) return document
  const operations = patchOf(Object(before), Object(after))
  // Where a part is written once and used twice, the two would change together.
  if (hasAliases(document) || !operations.every((operation) => applyTo(document, operation))) return new Document(after)
  return document
}

/** https://kubernetes.io/docs/concepts/workloads/controllers/: where the pod is in an object. */
const PATHS: readonly (readonly string[])[] = [
  ['spec', 'jobTemplate', 'spec', 'template'],
  ['spec', 'template'],
  ['template'],
]

/** The same object where nothing was to do. */
function injectObject(object: unknown, place: string, work: Work): unknown {
  if (!isRecord(object)) return object
  const { items } = object
  if (Array.isArray(items) && String(object.kind).endsWith('List')) {
    const after = items.map((item) => injectObject(item, place, work))
    return after.every((item, index) => item === items[index]) ? object : { ...object, items: after }
  }
  const who = `${object.kind} ${Named.safeParse(object).data?.metadata.name ?? 'without a name'}`
  if (object.kind === 'Pod') return injectTemplate(object, `${place}, ${who}`, who, work)
  const path = PATHS.find((each) => isRecord(at(object, [...each, 'spec'])))
  if (!path) return object
  if (
    asksForInjection(Named.safeParse(object).data?.metadata.annotations ?? {}) &&
    !asksForInjection(Named.safeParse(at(object, path)).data?.metadata.annotations ?? {})
  )
    work.found.warnings.push(
      `${place}, ${who}: annotations under ${PREFIX} belong to the pod: put them at ${[...path, 'metadata', 'annotations'].join('.')}`,
    )
  const template = at(object, path)
  const injected = injectTemplate(template, `${place}, ${who}`, who, work)
  return injected === template ? object : replaced(object, path, injected)
}

const Named = z.object({
  metadata: z.object({ name: z.string().optional(), annotations: z.record(z.string(), z.string()).nullish() }),
})

function injectTemplate(template: unknown, place: string, who: string, { context, found }: Work): unknown {
  const annotations = Named.safeParse(template).data?.metadata.annotations
  if (!annotations || !askedBy(annotations, context)) return template
  try {
    const injection = injectPod(removeInjection(parsePod(template)), context)
    if (injection.kind === 'skipped') return template
    found.injected.push(who)
    found.warnings.push(...injection.warnings.map((warning) => `${place}: ${warning}`))
    return injection.pod
  } catch (thrown) {
    const { code, message } = toSidecarError(thrown)
    if (code !== 'INJECTION_REFUSED') throw thrown
    found.refused.push(`${place}: ${message}`)
    return template
  }
}

const at = (object: unknown, path: readonly string[]): unknown =>
  path.reduce((here, key) => (isRecord(here) ? here[key] : undefined), object)

function replaced(object: unknown, [key, ...rest]: readonly string[], value: unknown): unknown {
  if (key === undefined) return value
  return { ...(isRecord(object) ? object : {}), [key]: replaced(at(object, [key]), rest, value) }
}

function hasAliases(document: Document): boolean {
  let found = false
  visit(document, (_key, node) => {
    if (isAlias(node)) found = true
  })
  return found
}

/** One operation on the tree that the text was read into, whose comments stay. False where it has no such place. */
function applyTo(
  document: Document,
  operation: { readonly op: string; readonly path: string; readonly value?: unknown },
): boolean {
  const path = operation.path
    .split('/')
    .slice(1)
    .map((part) => part.replaceAll('~1', '/').replaceAll('~0', '~'))
  const [parentPath, last = ''] = [path.slice(0, -1), path.at(-1)]
  const parent = parentPath.length === 0 ? document.contents : document.getIn(parentPath, true)
  if (!isCollection(parent)) return false
  // What was on one line no longer fits on it.
  for (const length of path.keys()) {
    const around = length === 0 ? document.contents : document.getIn(path.slice(0, length), true)
    if (isCollection(around)) around.flow = false
  }
  const key = isSeq(parent) ? (last === '-' ? parent.items.length : Number(last)) : last
  if (operation.op === 'remove') return parent.delete(key)
  const node = document.createNode(operation.value)
  if (operation.op === 'add' && isSeq(parent)) parent.items.splice(Number(key), 0, node)
  else parent.set(key, node)
  return true
}
