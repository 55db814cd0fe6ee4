import { isAbsolute } from 'node:path'
import { type Document, isPair, isScalar, isSeq, type Node, visit } from 'yaml'
import { systemCode } from '../errors.ts'
import { readPlainFile } from '../plain-file.ts'
import type { Env } from './environment.ts'
import type { Path } from './problems.ts'

/** A reference that could not be replaced. */
export interface Unresolved {
  readonly path: Path
  readonly node: Node
  readonly message: string
}

/**
 * Replaces `${NAME}`, `${NAME:-default}` and `${file:/path}` in every string that is a value; `$${` stands for a plain `${`.
 * On parsed scalars, never on raw text: so no value can add a key, and none needs quoting.
 */
export function interpolate(document: Document.Parsed, env: Env): { unresolved: Unresolved[]; variables: Referred[] } {
  const unresolved: Unresolved[] = []
  const variables: Referred[] = []
  visit(document, {
    Scalar(key, node, ancestors) {
      if (key === 'key' || typeof node.value !== 'string' || !node.value.includes('${')) return
      node.value = node.value.replace(/\$\$\{|\$\{([^}]*)\}?/g, (whole, reference: string | undefined) => {
        if (reference === undefined) return '${'
        const { text, problem, name } = whole.endsWith('}') ? lookUp(reference, env) : UNCLOSED
        if (name !== undefined) variables.push({ name, path: pathTo(node, ancestors) })
        if (problem) unresolved.push({ path: pathTo(node, ancestors), node, message: problem })
        return text
      })
    },
  })
  return { unresolved, variables }
}

/** A variable that a value was taken from. */
export interface Referred {
  readonly name: string
  readonly path: Path
}

interface Found {
  readonly text: string
  readonly problem?: string
  /** Of the variable. */
  readonly name?: string
}

const UNCLOSED: Found = { text: '', problem: '${ lacks its closing }; a plain ${ is written $${' }

function lookUp(reference: string, env: Env): Found {
  const fail = (problem: string): Found => ({ text: '', problem: `\${${reference}}: ${problem}` })
  if (reference.startsWith('file:')) return readReferenced(reference.slice('file:'.length), fail)
  const [, name, fallback] = /^([A-Za-z_]\w*)(?::-(.*))?$/s.exec(reference) ?? []
  if (name === undefined) return fail('write ${NAME}, ${NAME:-default} or ${file:/path}')
  const text = env[name] || fallback
  return text === undefined ? fail(`the environment variable ${name} is not set`) : { text, name }
}

function readReferenced(path: string, fail: (problem: string) => Found): Found {
  if (!isAbsolute(path)) return fail('the path must be absolute')
  try {
    return { text: readPlainFile(path).toString('utf8').trimEnd() }
  } catch (error) {
    return fail(`the file cannot be read (${systemCode(error) ?? 'unknown error'})`)
  }
}

/** `ancestors` as `visit` gives them: maps, the pairs in them, and lists. */
function pathTo(node: Node, ancestors: readonly unknown[]): Path {
  const way = [...ancestors, node]
  return way.flatMap((step, index): Path => {
    const parent = way[index - 1]
    if (isPair(step) && isScalar(step.key)) return [String(step.key.value)]
    return isSeq(parent) ? [parent.items.indexOf(step)] : []
  })
}
