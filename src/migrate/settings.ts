import { SidecarError } from '../errors.ts'
import { type Block, type Item, isBlock, type Place, parseHcl, type Value } from './hcl.ts'

/** A block of settings of the other tool. It knows which of them were asked for, so that none is passed over in silence. */
export interface Settings {
  /** Labels of the block: `env_template "NAME"`. */
  readonly labels: readonly string[]
  readonly line: number
  readonly has: (name: string) => boolean
  readonly lineOf: (name: string) => number
  /** Numbers and flags as text too: the other tools are as lenient. */
  readonly text: (name: string) => string | undefined
  readonly flag: (name: string) => boolean | undefined
  /** One text stands for a list of one. */
  readonly list: (name: string) => readonly string[] | undefined
  /** A duration as certferry writes it. */
  readonly duration: (name: string) => string | undefined
  /** A file mode, as four octal digits. */
  readonly mode: (name: string) => string | undefined
  /** All blocks of this name. */
  readonly blocks: (name: string) => readonly Settings[]
  readonly block: (name: string) => Settings | undefined
  /** Those that nobody has asked for. */
  readonly unread: () => readonly { readonly name: string; readonly line: number }[]
}

/** The settings of a whole file. Throws USAGE where it cannot be read. */
export const settingsFrom = (text: string, file: string): Settings => over(parseHcl(text, file), [], file)

function over(block: Block, labels: readonly string[], file: string): Settings {
  const asked = new Set<string>()
  const itemsOf = (name: string) => {
    asked.add(name)
    return block.items.filter(({ keys }) => keys[0] === name)
  }
  const settled = (name: string) => {
    const item = itemsOf(name).at(-1)
    return item && item.value !== null ? item : undefined
  }
  const refuse = ({ line, column }: Place, message: string): never => {
    throw new SidecarError('USAGE', `${file}:${line}:${column}: ${message}`)
  }
  const textOf = ({ keys, place, value }: Item): string =>
    typeof value === 'string' || typeof value === 'number' || typeof value === 'boolean'
      ? String(value)
      : refuse(place, `${keys[0]} must be a single value`)
  const text = (name: string) => {
    const item = settled(name)
    return item && textOf(item)
  }
  const blocks = (name: string) =>
    itemsOf(name).flatMap((item) =>
      bodiesOf(item).map(([body, ...names]) =>
        isBlock(body) ? over(body, names, file) : refuse(item.place, `${name} must be a block in braces`),
      ),
    )
  return {
    labels,
    line: block.place.line,
    has: (name) => settled(name) !== undefined,
    lineOf: (name) => settled(name)?.place.line ?? block.place.line,
    text,
    flag: (name) => {
      const item = settled(name)
      if (!item) return undefined
      const said = FLAGS[textOf(item).toLowerCase()]
      return said ?? refuse(item.place, `${name} must be true or false`)
    },
    list: (name) => {
      const item = settled(name)
      if (!item) return undefined
      if (!Array.isArray(item.value)) return [textOf(item)]
      return item.value.map((value) => textOf({ ...item, value }))
    },
    duration: (name) => {
      const item = settled(name)
      return item && (durationOf(textOf(item)) ?? refuse(item.place, `${name} must be a duration such as 30s`))
    },
    mode: (name) => {
      const item = settled(name)
      if (!item || item.value === '') return undefined
      // A bare 0640 was octal already, a text is so always.
      const digits = typeof item.value === 'number' ? item.value.toString(8) : textOf(item)
      return /^[0-7]{3,5}$/.test(digits)
        ? digits.replace(/^0+(?=...)/, '').padStart(4, '0')
        : refuse(item.place, `${name} must be a mode such as "0640"`)
    },
    blocks,
    block: (name) => {
      const [first, second] = blocks(name)
      if (second) refuse({ line: second.line, column: 1 }, `${name} is given twice`)
      return first
    },
    unread: () =>
      block.items.flatMap(({ keys: [name = ''], place }) => (asked.has(name) ? [] : [{ name, line: place.line }])),
  }
}

/** As Go reads them. */
const FLAGS: Readonly<Record<string, boolean>> = { true: true, t: true, 1: true, false: false, f: false, 0: false }

/** `name "label" {}`, `name = {}` and `name = [{}, {}]` mean the same; so does `name = { label = {} }`, as JSON has to write it. */
function bodiesOf({ keys: [, ...labels], value }: Item): (readonly [Value, ...string[]])[] {
  const bodies = Array.isArray(value) ? value : [value]
  return bodies.flatMap((body) =>
    labels.length === 0 && isBlock(body) && body.items.length > 0 && body.items.every(isLabelled)
      ? body.items.flatMap((item) => listOf(item.value).map((inner) => [inner, ...item.keys] as const))
      : [[body, ...labels] as const],
  )
}

const listOf = (value: Value): readonly Value[] => (Array.isArray(value) ? value : [value])
/** A name that stands for a block in turn, and none of the blocks that the tools have within others. */
const isLabelled = ({ keys: [name = ''], value }: Item): boolean =>
  listOf(value).every(isBlock) && !NESTED.includes(name) && listOf(value).length > 0
const NESTED = ['retry', 'ssl', 'transport', 'env', 'exec', 'wait', 'config', 'method', 'sink', 'persist', 'vault']

/** Go's durations, `1h30m`, are those of certferry; of bare numbers the tools make seconds. */
const durationOf = (text: string): string | undefined =>
  /^\d+$/.test(text) ? `${text}s` : /^(?:\d+(?:\.\d+)?(?:h|ms|m|s))+$/.test(text) ? text : undefined
