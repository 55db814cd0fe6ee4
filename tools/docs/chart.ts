import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { isMap, isScalar, type Pair, parseDocument, type YAMLMap } from 'yaml'
import { ROOT } from '../packages.ts'
import { code, table } from './table.ts'

const CHART = join(ROOT, 'charts/certferry')
const BLOCK = /(?<=<!-- values:begin -->\n).*(?=<!-- values:end -->)/s

export interface Value {
  /** `image.tag` */
  readonly path: string
  readonly default: unknown
  readonly description: string
}

/** The chart's README with the table of its values written anew between its markers. */
export async function renderChart(): Promise<string> {
  const readme = await readFile(join(CHART, 'README.md'), 'utf8')
  if (!BLOCK.test(readme))
    throw new Error('charts/certferry/README.md has lost its markers <!-- values:begin --> and end')
  const rows = (await chartValues()).map((value) => [code(value.path), shown(value.default), value.description])
  return readme.replace(BLOCK, () => `${table(['Value', 'Default', 'Meaning'], rows)}\n`)
}

/** Every value that values.yaml describes with `# -- …`, as helm-docs does. Throws for one that it does not describe. */
export async function chartValues(): Promise<Value[]> {
  const { contents } = parseDocument(await readFile(join(CHART, 'values.yaml'), 'utf8'))
  if (!isMap(contents)) throw new Error('values.yaml is no map')
  return valuesOf(contents, [])
}

function valuesOf(map: YAMLMap, parents: readonly string[]): Value[] {
  return map.items.flatMap((pair, index) => {
    const path = [...parents, String(pair.key)]
    const description = descriptionOf(pair, index === 0 ? map.commentBefore : undefined)
    if (description !== undefined) return [{ path: path.join('.'), default: plain(pair.value), description }]
    if (isMap(pair.value) && !pair.value.flow) return valuesOf(pair.value, path)
    throw new Error(`values.yaml does not describe ${path.join('.')} ("# -- …" above it)`)
  })
}

/** The parser gives what is above the first key of a map to the map. */
function descriptionOf({ key }: Pair, ofMap: string | null | undefined): string | undefined {
  const comment = [ofMap, isScalar(key) ? key.commentBefore : undefined]
    .filter((part) => typeof part === 'string')
    .join('\n')
  return /^ -- (.*)$/m.exec(comment)?.[1]
}

const plain = (value: unknown): unknown =>
  typeof value === 'object' && value !== null && 'toJSON' in value && typeof value.toJSON === 'function'
    ? value.toJSON()
    : value

function shown(value: unknown): string {
  if (value === '') return ''
  const text = typeof value === 'string' ? value : JSON.stringify(value)
  return text.length > 60 ? 'see values.yaml' : code(text)
}
