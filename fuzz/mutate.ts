export type Random = () => number

export interface Material {
  readonly random: Random
  /** Words that mean something to the target. */
  readonly dictionary: readonly string[]
  /** Another input, to take pieces from. */
  readonly other: Buffer
  /** Changes that know the structure of the input. */
  readonly structured: Mutator
}

/** A changed copy; the input as it is where the change does not apply. */
export type Mutator = (input: Buffer, material: Material) => Buffer

/** Longer inputs only cost time. */
const LONGEST = 16_384

/** A copy with one to six changes. */
export function mutate(input: Buffer, material: Material): Buffer {
  const { random, structured } = material
  let mutated = input
  for (let changes = 1 + below(6, random); changes > 0; changes--)
    mutated = (random() < 0.4 ? structured : pick(PLAIN, random))(mutated, material)
  return Buffer.from(mutated.subarray(0, LONGEST))
}

export const below = (limit: number, random: Random) => Math.floor(random() * limit)

export function pick<T>(items: readonly T[], random: Random): T {
  const item = items[below(items.length, random)]
  if (item === undefined) throw new Error('nothing to pick from')
  return item
}

/** Replaces `length` bytes at `at`. */
export const replaced = (input: Buffer, at: number, length: number, content: Buffer | string) =>
  Buffer.concat([input.subarray(0, at), Buffer.from(content), input.subarray(at + length)])

const position = (input: Buffer, random: Random) => below(input.length + 1, random)
const span = (input: Buffer, random: Random) => {
  const start = position(input, random)
  return { start, length: below(Math.min(input.length - start, random() < 0.8 ? 16 : input.length) + 1, random) }
}

const flipBit: Mutator = (input, { random }) => {
  const copy = Buffer.from(input)
  const at = below(copy.length, random)
  copy[at] = (copy[at] ?? 0) ^ (1 << below(8, random))
  return copy
}
const setByte: Mutator = (input, { random }) =>
  replaced(input, position(input, random), 1, Buffer.of(pick([0, 9, 10, 13, 27, 32, 127, 128, 255], random)))
const remove: Mutator = (input, { random }) => {
  const { start, length } = span(input, random)
  return replaced(input, start, length, '')
}
const repeat: Mutator = (input, { random }) => {
  const { start, length } = span(input, random)
  const times = random() < 0.95 ? 1 : 100
  return replaced(input, start, 0, Buffer.concat(Array(times).fill(input.subarray(start, start + length))))
}
const splice: Mutator = (input, { random, other }) => {
  const from = span(other, random)
  const { start, length } = span(input, random)
  return replaced(input, start, length, other.subarray(from.start, from.start + from.length))
}
const crossOver: Mutator = (input, { random, other }) =>
  Buffer.concat([input.subarray(0, position(input, random)), other.subarray(position(other, random))])
const insertWord: Mutator = (input, { random, dictionary }) =>
  replaced(input, position(input, random), 0, pick(dictionary, random))
const overwriteWord: Mutator = (input, { random, dictionary }) => {
  const word = pick(dictionary, random)
  return replaced(input, position(input, random), word.length, word)
}
const changeNumber: Mutator = (input, { random }) => {
  const text = input.toString('latin1')
  const numbers = [...text.matchAll(/\d+/g)]
  if (numbers.length === 0) return input
  const { index, 0: digits } = pick(numbers, random)
  const number = pick(['0', '-1', '1', '65536', '4294967296', '1e400', '9'.repeat(40), `${Number(digits) + 1}`], random)
  return replaced(input, index, digits.length, number)
}
/** Drops, doubles, indents or moves a line: the unit of YAML, PEM and HTTP heads alike. */
const changeLine: Mutator = (input, { random }) => {
  const lines = input.toString('latin1').split('\n')
  const at = below(lines.length, random)
  const line = lines[at] ?? ''
  const put = pick([[], [line, line], [` ${line}`], [`  ${line}`], [line.trimStart()], [line, '']], random)
  lines.splice(at, 1, ...put)
  if (random() < 0.2) lines.splice(below(lines.length, random), 0, ...lines.splice(at, 1))
  return Buffer.from(lines.join('\n'), 'latin1')
}

const PLAIN: readonly Mutator[] = [
  flipBit,
  setByte,
  remove,
  repeat,
  splice,
  crossOver,
  insertWord,
  insertWord,
  overwriteWord,
  changeNumber,
  changeLine,
  changeLine,
]
