import type { PlainMap } from './migration.ts'

/** The values that the templates of one secret read, by their names. */
export interface ValueBook {
  /** The name under which the templates find what lies at a path of Vault; `parameters` are sent with it. */
  readonly nameOf: (path: string, parameters: readonly string[]) => string
  /** Whether it is read as an entry of KV version 2, whose fields lie below `.Data.data`. */
  readonly isKv2: (path: string) => boolean
  /** That `.Data.NAME` was asked for. */
  readonly sees: (path: string, field: string) => void
}

/** `kv2` names the paths that are read as entries of KV version 2; `poll` is how often is read again what has no lease. */
export function createValueBook(kv2: ReadonlySet<string>, poll: string | undefined) {
  const names = new Map<string, string>()
  const seen = new Map<string, Set<string>>()
  const values: PlainMap = {}
  const book: ValueBook = {
    nameOf: (path, parameters) => {
      const key = JSON.stringify([path, ...parameters])
      const known = names.get(key)
      if (known !== undefined) return known
      const name = freeName(path, values)
      names.set(key, name)
      values[name] = valueAt(path, parameters, { isKv2: kv2.has(path), poll })
      return name
    },
    isKv2: (path) => kv2.has(path),
    sees: (path, field) => {
      const fields = seen.get(path) ?? new Set<string>()
      seen.set(path, fields.add(field))
    },
  }
  return { book, values, seen }
}

/** Words of Liquid, and names of loops, that no value can be called by. */
const RESERVED = /^(?:and|or|not|contains|true|false|nil|null|empty|blank|forloop|(?:item|keys?)\d*)$/

function freeName(path: string, taken: PlainMap): string {
  const last = path.split('?')[0]?.replace(/\/$/, '').split('/').at(-1) ?? ''
  const word = last
    .replace(/\W+/g, '_')
    .replace(/^_+|_+$/g, '')
    .toLowerCase()
  const stem = word === '' || /^\d/.test(word) || RESERVED.test(word) ? `value_${word}`.replace(/_$/, '') : word
  let name = stem
  for (let count = 2; Object.hasOwn(taken, name); count += 1) name = `${stem}_${count}`
  return name
}

function valueAt(
  whole: string,
  parameters: readonly string[],
  { isKv2, poll }: { isKv2: boolean; poll: string | undefined },
): PlainMap {
  const [path = '', query = ''] = whole.replace(/^\//, '').split('?')
  // Zero is the latest.
  const version = Number(new URLSearchParams(query).get('version'))
  const [, mount, below] = /^(.+?)\/data\/(.+)$/.exec(path) ?? /^([^/]+)\/(.+)$/.exec(path) ?? []
  if (isKv2 && mount !== undefined && below !== undefined)
    return {
      kind: 'vault-kv',
      mount,
      path: below,
      ...(version > 0 && { version }),
      ...(poll !== undefined && { poll }),
    }
  const pairs = parameters.map((pair) => [
    pair.slice(0, pair.indexOf('=')).trim(),
    pair.slice(pair.indexOf('=') + 1).trim(),
  ])
  return {
    kind: 'vault-read',
    path,
    ...(pairs.length > 0 && { parameters: Object.fromEntries(pairs) }),
    ...(poll !== undefined && { poll }),
  }
}
